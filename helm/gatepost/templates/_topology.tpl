{{/* The pod that makes the streams, as the template of a Job: metadata and spec. */}}
{{- define "gatepost.topology.pod" -}}
{{- $component := dict "root" . "component" "topology" -}}
{{- $config := include "gatepost.config" $component | fromYaml -}}
metadata:
  {{- $annotations := dict "checksum/config" ($config.nats | toYaml | sha256sum) }}
  {{- include "gatepost.podMetadata" (dict "root" . "component" "topology" "annotations" $annotations) | nindent 2 }}
spec:
  restartPolicy: OnFailure
  serviceAccountName: {{ include "gatepost.name" $component }}
  automountServiceAccountToken: false
  securityContext:
    {{- include "gatepost.podSecurity" . | nindent 4 }}
  {{- include "gatepost.podPlacement" $component | nindent 2 }}
  containers:
    - name: topology
      image: {{ include "gatepost.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [topology, ensure, --config, /etc/gatepost/config/gatepost.yaml, --wait, "120"]
      securityContext:
        {{- include "gatepost.containerSecurity" . | nindent 8 }}
      resources:
        {{- toYaml .Values.jobs.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/gatepost/config, readOnly: true}
        - {name: nats, mountPath: /etc/gatepost/nats, readOnly: true}
        {{- if .Values.nats.tls.enabled }}
        - {name: nats-tls, mountPath: /etc/gatepost/nats-tls, readOnly: true}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "gatepost.name" $component }}
    - {{- include "gatepost.natsVolume" $component | nindent 6 }}
    {{- if .Values.nats.tls.enabled }}
    - {{- include "gatepost.certificateVolume" (dict "name" "nats-tls" "secret" (include "gatepost.secret.nats-tls" .) "files" (list "ca.crt")) | nindent 6 }}
    {{- end }}
{{- end -}}
