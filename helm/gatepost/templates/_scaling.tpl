{{/* How many pods a service has, and who decides. */}}

{{- define "gatepost.hpa" -}}
{{- $scaling := (get .root.Values .component).autoscaling -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "gatepost.name" . }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $scaling.cpuPercent }}
  behavior:
    scaleDown:
      # Sessions and connections are moved at each step down; there is no hurry.
      stabilizationWindowSeconds: 300
{{- end -}}

{{/* (dict "root" $ "component" "delivery"): how many pods it may have at most. */}}
{{- define "gatepost.scaling.most" -}}
{{- $own := get .root.Values .component -}}
{{- if dig "keda" "enabled" false $own -}}
{{- $own.keda.maxReplicas -}}
{{- else if dig "autoscaling" "enabled" false $own -}}
{{- $own.autoscaling.maxReplicas -}}
{{- else -}}
{{- $own.replicas -}}
{{- end -}}
{{- end -}}

{{/* "true" if the pods of delivery use a volume that one node alone may use at a time. */}}
{{- define "gatepost.mailbox.ofOneNode" -}}
{{- if and .Values.mailbox.enabled (not (has "ReadWriteMany" .Values.mailbox.accessModes)) -}}
true
{{- end -}}
{{- end -}}

{{- define "gatepost.scaling.check" -}}
{{- if and .Values.delivery.keda.enabled .Values.delivery.autoscaling.enabled -}}
{{- fail "delivery.autoscaling and delivery.keda: choose one of them; KEDA makes an autoscaler of its own, and two would work against each other" -}}
{{- end -}}
{{- $most := include "gatepost.scaling.most" (dict "root" . "component" "delivery") | int -}}
{{- if and (gt $most 1) (include "gatepost.mailbox.ofOneNode" .) -}}
{{- fail (printf "mailbox.accessModes: with up to %d replicas of delivery the mailboxes need a volume that all of their nodes may use, ReadWriteMany; or keep one replica (delivery.replicas, without autoscaling and keda), or a mail store of yours (config.mailbox.kind lmtp, mailbox.enabled false)" $most) -}}
{{- end -}}
{{- end -}}
