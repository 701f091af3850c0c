{{/*
`helm test`: mail to a reserved domain is passed on to the pod that sent it. By LMTP, of which delivery
never demands TLS.
*/}}

{{/* Under a name that no DNS will ever have (RFC 6761), so that no mail of people goes there. */}}
{{- define "gatepost.test.domain" -}}
helm-test.invalid
{{- end -}}

{{- define "gatepost.test.port" -}}
2500
{{- end -}}
