{{/* The objects that stand beside each Deployment. */}}

{{- define "gatepost.serviceaccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}

{{- define "gatepost.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "gatepost.selector" . | nindent 6 }}
{{- end -}}

{{/* Headless, so that clients see every replica and share their calls among them. */}}
{{- define "gatepost.rpcService" -}}
{{- $config := include "gatepost.config" . | fromYaml -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
spec:
  clusterIP: None
  selector:
    {{- include "gatepost.selector" . | nindent 4 }}
  ports:
    - name: grpc
      port: {{ include "gatepost.port" (get $config.services .component).grpc }}
      targetPort: grpc
      {{- if not .root.Values.grpc.tls.enabled }}
      appProtocol: kubernetes.io/h2c
      {{- end }}
{{- end -}}

{{/* What switches the PROXY protocol on in the load balancers of a provider. */}}
{{- define "gatepost.proxyAnnotations" -}}
{{- $known := dict
  "aws" (dict "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol" "*")
  "digitalocean" (dict "service.beta.kubernetes.io/do-loadbalancer-enable-proxy-protocol" "true")
  "hetzner" (dict "load-balancer.hetzner.cloud/uses-proxyprotocol" "true")
  "openstack" (dict "loadbalancer.openstack.org/proxy-protocol" "true")
-}}
{{- with .Values.ingress.proxyProtocol.provider -}}
{{- toYaml (get $known .) -}}
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "component" "ingress" "name" … "service" values "listeners" list): a Service for SMTP. */}}
{{- define "gatepost.smtpService" -}}
{{- $service := .service -}}
{{- $open := has $service.type (list "LoadBalancer" "NodePort") -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
  {{- $annotations := include "gatepost.proxyAnnotations" .root | fromYaml -}}
  {{- include "gatepost.lay" (list $annotations $service.annotations) -}}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $service.type }}
  {{- if $open }}
  # Local: clients keep their addresses, which SPF, HELO checks and limits need.
  externalTrafficPolicy: {{ $service.externalTrafficPolicy }}
  {{- end }}
  {{- if eq $service.type "LoadBalancer" }}
  {{- with $service.loadBalancerClass }}
  loadBalancerClass: {{ . }}
  {{- end }}
  {{- with $service.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $service.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
  {{- end }}
  selector:
    {{- include "gatepost.selector" . | nindent 4 }}
  ports:
    {{- range .listeners }}
    - name: {{ .name }}
      port: {{ get ($service.ports | default dict) .name | default .port }}
      targetPort: {{ .name }}
      {{- if $open }}
      {{- with get ($service.nodePorts | default dict) .name }}
      nodePort: {{ . }}
      {{- end }}
      {{- end }}
    {{- end }}
{{- end -}}
