{{/* What objects are called, how they are labelled, which image they run. */}}

{{- define "gatepost.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "gatepost" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-gatepost" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "component" "policy"): the name of a component's objects. */}}
{{- define "gatepost.name" -}}
{{- printf "%s-%s" (include "gatepost.fullname" .root) .component -}}
{{- end -}}

{{/* The same as a name in the cluster's DNS: absolute, since our resolver searches no suffixes. */}}
{{- define "gatepost.host" -}}
{{- printf "%s.%s.svc.%s" (include "gatepost.name" .) .root.Release.Namespace .root.Values.clusterDomain -}}
{{- end -}}

{{/* What selects the pods of a component; never changes in the life of a release. */}}
{{- define "gatepost.selector" -}}
app.kubernetes.io/name: gatepost
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "gatepost.labels" -}}
{{ include "gatepost.selector" . }}
app.kubernetes.io/part-of: gatepost
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* (dict "root" $ "component" "policy" "name" "…"): the metadata of an object; the name may be left out. */}}
{{- define "gatepost.metadata" -}}
name: {{ .name | default (include "gatepost.name" .) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "gatepost.labels" . | nindent 2 }}
{{- end -}}

{{- define "gatepost.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The Secrets that may be given by name or are made here. */}}
{{- define "gatepost.secret.tokens" -}}
{{- .Values.tokens.existingSecret | default (include "gatepost.name" (dict "root" . "component" "tokens")) -}}
{{- end -}}

{{- define "gatepost.secret.accounts" -}}
{{- .Values.accounts.existingSecret | default (include "gatepost.name" (dict "root" . "component" "accounts")) -}}
{{- end -}}

{{- define "gatepost.secret.tls" -}}
{{- .Values.tls.existingSecret | default (include "gatepost.name" (dict "root" . "component" "tls")) -}}
{{- end -}}

{{- define "gatepost.secret.nats" -}}
{{- .Values.nats.auth.existingSecret | default (include "gatepost.name" (dict "root" . "component" "nats-auth")) -}}
{{- end -}}
