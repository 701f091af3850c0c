{{/* The shape that all pods share: who they run as, what they may do, how they are spread. */}}

{{- define "gatepost.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "gatepost.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* (dict "root" $ "component" "policy" "own" .Values.policy.pods): labels, annotations and placement. */}}
{{- define "gatepost.podMetadata" -}}
{{- $pods := deepCopy .root.Values.pods -}}
{{- include "gatepost.lay" (list $pods (deepCopy (.own | default dict))) -}}
labels:
  {{- include "gatepost.labels" . | nindent 2 }}
  {{- with $pods.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := .annotations | default dict -}}
{{- include "gatepost.lay" (list $annotations $pods.annotations) -}}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (dict "kind" "preferred" "selector" labels): replicas of a component keep off each other's nodes. */}}
{{- define "gatepost.antiAffinity" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (.selector | fromYaml)) -}}
{{- if eq .kind "required" -}}
podAntiAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - {{- toYaml $term | nindent 6 }}
{{- else if eq .kind "preferred" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        {{- toYaml $term | nindent 8 }}
{{- end -}}
{{- end -}}

{{- define "gatepost.podPlacement" -}}
{{- $pods := deepCopy .root.Values.pods -}}
{{- include "gatepost.lay" (list $pods (deepCopy (.own | default dict))) -}}
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $selector := include "gatepost.selector" . -}}
{{- $affinity := include "gatepost.antiAffinity" (dict "kind" $pods.antiAffinity "selector" $selector) | fromYaml -}}
{{- include "gatepost.lay" (list $affinity $pods.affinity) -}}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.spread }}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ .topologyKey }}
    whenUnsatisfiable: {{ .whenUnsatisfiable }}
    maxSkew: 1
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "gatepost.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/*
(dict "root" $ "component" "policy" "nats" true "tokens" (list "service" …) "tls" true "mounts" (list …) "volumes" (list …) "recreate" true):
a service. `mounts` and `volumes` are what it has besides its configuration and those Secrets. With
`recreate` the old pods end before new ones begin.
*/}}
{{- define "gatepost.deployment" -}}
{{- $root := .root -}}
{{- $own := get $root.Values .component -}}
{{- $config := include "gatepost.config" . | fromYaml -}}
{{- $service := get $config.services .component -}}
{{- $mounts := list (dict "name" "config" "mountPath" "/etc/gatepost/config" "readOnly" true) -}}
{{- $volumes := list (dict "name" "config" "configMap" (dict "name" (include "gatepost.name" .))) -}}
{{- $mounts = append $mounts (dict "name" "tokens" "mountPath" "/etc/gatepost/tokens" "readOnly" true) -}}
{{- $items := list -}}
{{- range .tokens -}}
{{- $file := printf "%s.token" . -}}
{{- $items = append $items (dict "key" $file "path" $file) -}}
{{- end -}}
{{- $volumes = append $volumes (dict "name" "tokens" "secret" (dict "secretName" (include "gatepost.secret.tokens" $root) "defaultMode" 288 "items" $items)) -}}
{{- if .nats -}}
{{- $mounts = append $mounts (dict "name" "nats" "mountPath" "/etc/gatepost/nats" "readOnly" true) -}}
{{- $volumes = append $volumes (include "gatepost.natsVolume" . | fromYaml) -}}
{{- if $root.Values.nats.tls.enabled -}}
{{- $mounts = append $mounts (dict "name" "nats-tls" "mountPath" "/etc/gatepost/nats-tls" "readOnly" true) -}}
{{- $volumes = append $volumes (include "gatepost.certificateVolume" (dict "name" "nats-tls" "secret" (include "gatepost.secret.nats-tls" $root) "files" (list "ca.crt")) | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- if $root.Values.grpc.tls.enabled -}}
{{- /* A client alone needs nobody's key. */ -}}
{{- $files := ternary (list "tls.crt" "tls.key" "ca.crt") (list "ca.crt") (hasKey $service "grpc") -}}
{{- $mounts = append $mounts (dict "name" "grpc-tls" "mountPath" "/etc/gatepost/grpc-tls" "readOnly" true) -}}
{{- $volumes = append $volumes (include "gatepost.certificateVolume" (dict "name" "grpc-tls" "secret" (include "gatepost.secret.grpc-tls" $root) "files" $files) | fromYaml) -}}
{{- end -}}
{{- if .tls -}}
{{- $mounts = append $mounts (dict "name" "tls" "mountPath" "/etc/gatepost/tls" "readOnly" true) -}}
{{- $volumes = append $volumes (dict "name" "tls" "secret" (dict "secretName" (include "gatepost.secret.tls" $root) "defaultMode" 288)) -}}
{{- end -}}
{{- $mounts = concat $mounts (.mounts | default list) $own.extraVolumeMounts -}}
{{- $volumes = concat $volumes (.volumes | default list) $own.extraVolumes -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
spec:
  {{- if not (or (dig "autoscaling" "enabled" false $own) (dig "keda" "enabled" false $own)) }}
  replicas: {{ $own.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    {{- if .recreate }}
    type: Recreate
    {{- else }}
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
    {{- end }}
  selector:
    matchLabels:
      {{- include "gatepost.selector" . | nindent 6 }}
  template:
    metadata:
      {{- $annotations := dict "checksum/restart" (include "gatepost.config.restart" $config) -}}
      {{- include "gatepost.podMetadata" (dict "root" $root "component" .component "own" $own.pods "annotations" $annotations) | nindent 6 }}
    spec:
      serviceAccountName: {{ include "gatepost.name" . }}
      automountServiceAccountToken: {{ .kubernetesApi | default false }}
      terminationGracePeriodSeconds: {{ include "gatepost.terminationSeconds" (dict "root" $root "config" $config) }}
      securityContext:
        {{- include "gatepost.podSecurity" $root | nindent 8 }}
      {{- include "gatepost.podPlacement" (dict "root" $root "component" .component "own" $own.pods) | nindent 6 }}
      containers:
        - name: {{ .component }}
          image: {{ include "gatepost.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [{{ .component }}, --config, /etc/gatepost/config/gatepost.yaml]
          {{- if has "operator" .tokens }}
          env:
            # `kubectl exec` and then `gatepost …` needs no options.
            - name: GATEPOST_TOKEN_FILE
              value: /etc/gatepost/tokens/operator.token
            {{- if $root.Values.grpc.tls.enabled }}
            - name: GATEPOST_CA_FILE
              value: /etc/gatepost/grpc-tls/ca.crt
            {{- end }}
          {{- end }}
          ports:
            - name: http
              containerPort: {{ include "gatepost.port" $service.http }}
            {{- with $service.grpc }}
            - name: grpc
              containerPort: {{ include "gatepost.port" . }}
            {{- end }}
            {{- if eq .component "ingress" }}
            {{- range $config.smtp.listeners }}
            - name: {{ .name }}
              containerPort: {{ .port }}
            {{- end }}
            {{- end }}
          {{- include "gatepost.probes" $root | nindent 10 }}
          {{- with $root.Values.pods.stopDelaySeconds }}
          lifecycle:
            preStop:
              sleep: {seconds: {{ . }}}
          {{- end }}
          securityContext:
            {{- include "gatepost.containerSecurity" $root | nindent 12 }}
          resources:
            {{- toYaml $own.resources | nindent 12 }}
          volumeMounts:
            {{- toYaml $mounts | nindent 12 }}
      volumes:
        {{- toYaml $volumes | nindent 8 }}
{{- end -}}

{{/* The password of one NATS user, the component's own, as the file `password`. */}}
{{- define "gatepost.natsVolume" -}}
name: nats
secret:
  secretName: {{ include "gatepost.secret.nats" .root }}
  defaultMode: 288
  items:
    - key: {{ .component }}
      path: password
{{- end -}}
