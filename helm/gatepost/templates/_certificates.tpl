{{/*
Certificates for what is said inside: each a Secret of tls.crt, tls.key and ca.crt, given by name, made by
cert-manager, or made here with an authority of its own and kept by upgrades.
*/}}

{{- define "gatepost.secret.nats-tls" -}}
{{- .Values.nats.tls.existingSecret | default (include "gatepost.name" (dict "root" . "component" "nats-tls")) -}}
{{- end -}}

{{- define "gatepost.secret.grpc-tls" -}}
{{- .Values.grpc.tls.existingSecret | default (include "gatepost.name" (dict "root" . "component" "grpc-tls")) -}}
{{- end -}}

{{/* (dict "root" $ "component" "nats" "name" … "tls" .Values.nats.tls "hosts" list "addresses" list) */}}
{{- define "gatepost.insideCertificate" -}}
{{- if .tls.certManager.enabled -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
spec:
  secretName: {{ .name }}
  dnsNames: {{ toJson .hosts }}
  {{- with .addresses }}
  ipAddresses: {{ toJson . }}
  {{- end }}
  # The nodes of NATS are each other's clients.
  usages: [digital signature, key encipherment, server auth, client auth]
  issuerRef:
    {{- include "gatepost.issuer" (dict "key" (printf "%s.tls" .component) "tls" .tls) | nindent 4 }}
  privateKey:
    algorithm: ECDSA
    rotationPolicy: Always
{{- else -}}
{{- $made := (lookup "v1" "Secret" .root.Release.Namespace .name).data | default dict -}}
{{- if not (and (index $made "tls.crt") (index $made "tls.key") (index $made "ca.crt")) -}}
{{- $authority := genCA (printf "%s authority" .name) 3650 -}}
{{- $certificate := genSignedCert (first .hosts) .addresses .hosts 3650 $authority -}}
{{- $made = dict "tls.crt" ($certificate.Cert | b64enc) "tls.key" ($certificate.Key | b64enc) "ca.crt" ($authority.Cert | b64enc) -}}
{{- end -}}
apiVersion: v1
kind: Secret
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
type: kubernetes.io/tls
data:
  # Made at the first installation and kept by upgrades.
  {{- range $file := list "tls.crt" "tls.key" "ca.crt" }}
  {{ $file }}: {{ index $made $file }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* (dict "name" "nats-tls" "secret" … "files" list): a volume of some of the three files. */}}
{{- define "gatepost.certificateVolume" -}}
name: {{ .name }}
secret:
  secretName: {{ .secret }}
  defaultMode: 288
  items:
    {{- range .files }}
    - key: {{ . }}
      path: {{ . }}
    {{- end }}
{{- end -}}

{{/* (dict "key" "nats.tls" "tls" .Values.nats.tls): who of cert-manager is to make the certificate. */}}
{{- define "gatepost.issuer" -}}
{{- if not .tls.certManager.issuerRef.name -}}
{{- fail (printf "%s.certManager.issuerRef.name: name the Issuer of cert-manager that is to make the certificate, or with kind: ClusterIssuer one of the cluster" .key) -}}
{{- end -}}
{{- toYaml .tls.certManager.issuerRef -}}
{{- end -}}
