{{/*
`helm test`: a mail by an account that the pod makes for itself goes back to this pod. Its domain is
none of ours, so that nobody else sends there; only what the account submits is led here.
*/}}

{{/* Under a name that no DNS will ever have (RFC 6761), so that no mail of people goes there. */}}
{{- define "gatepost.test.domain" -}}
helm-test.invalid
{{- end -}}

{{- define "gatepost.test.port" -}}
2500
{{- end -}}

{{/* The listener to submit at, as YAML: the first where one can log in. Blank: none, and no test. */}}
{{- define "gatepost.test.listener" -}}
{{- $found := dict -}}
{{- if .Values.test.enabled -}}
{{- range dig "smtp" "listeners" list .Values.config -}}
{{- if and (not $found) (eq (.role | default "mx") "submission") (ne (.tls | default "starttls") "none") -}}
{{- $found = . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $found -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* Where that listener is reached: "host:port" of its Service. */}}
{{- define "gatepost.test.ingress" -}}
{{- $listener := include "gatepost.test.listener" . | fromYaml -}}
{{- $apart := .Values.ingress.submissionService.enabled -}}
{{- $service := ternary .Values.ingress.submissionService .Values.ingress.service $apart -}}
{{- $host := include "gatepost.host" (dict "root" . "component" (ternary "submission" "ingress" $apart)) -}}
{{- printf "%s:%d" $host (get ($service.ports | default dict) $listener.name | default $listener.port | int) -}}
{{- end -}}
