{{/*
Who may talk to whom: one table, from which the policies of both ends are made. Pods of this release
that are in no row talk to nobody.
*/}}

{{/*
Rows of from, to and ports. A name is a component of this release or one of: clients, operators,
prometheus, keda, dns (the servers that resolve for us), nameservers (DNS servers of the world), mail
(SMTP servers of the world), web (HTTPS servers of the world), apiserver. Where nobody may be one of
operators, prometheus or keda there is no row: a rule without peers would let in everybody.
*/}}
{{- define "gatepost.edges" -}}
{{- $config := include "gatepost.config" (dict "root" . "component" "ingress") | fromYaml -}}
{{- $services := $config.services -}}
{{- $given := .Values.networkPolicy -}}
{{- $nats := include "gatepost.config.natsPorts" (dict "root" . "config" $config) -}}
{{- $resolvers := include "gatepost.config.dnsPorts" (dict "ports" $given.dnsPorts "servers" (dig "dns" "servers" list $config)) -}}
{{- $publication := dig "keys" "publication_servers" list $config -}}
{{- $listeners := list -}}
{{- range $config.smtp.listeners -}}
{{- $listeners = append $listeners (int .port) -}}
{{- end -}}
edges:
  - {from: clients, to: ingress, ports: {{ toJson $listeners }}}
  - {from: ingress, to: policy, ports: [{{ include "gatepost.port" $services.policy.grpc }}]}
  - {from: ingress, to: nats, ports: {{ $nats }}}
  - {from: policy, to: nats, ports: {{ $nats }}}
  {{- if include "gatepost.config.callouts" $config }}
  - {from: policy, to: mail, ports: [{{ dig "policy" "callout" "port" 25 $config }}]}
  {{- end }}
  - {from: delivery, to: nats, ports: {{ $nats }}}
  - {from: delivery, to: keys, ports: [{{ include "gatepost.port" $services.keys.grpc }}]}
  - {from: delivery, to: mail, ports: {{ include "gatepost.config.hopPorts" $config }}}
  {{- if or (dig "delivery" "mta_sts" true $config) (dig "delivery" "tls_reports" "enabled" false $config) }}
  - {from: delivery, to: web, ports: [443]}
  {{- end }}
  - {from: keys, to: apiserver, ports: {{ toJson $given.apiServerPorts }}}
  # Whether a key's record is visible is for the servers of its zone to say.
  - {from: keys, to: nameservers, ports: {{ include "gatepost.config.dnsPorts" (dict "ports" (ternary list (list 53) (not (empty $publication))) "servers" $publication) }}}
  - {from: topology, to: nats, ports: {{ $nats }}}
  {{- range $service := list "ingress" "policy" "delivery" "keys" }}
  - {from: {{ $service }}, to: dns, ports: {{ ternary (toJson $given.dnsPorts) $resolvers (eq $service "ingress") }}}
  {{- if $given.prometheus }}
  - {from: prometheus, to: {{ $service }}, ports: [{{ include "gatepost.port" (get $services $service).http }}]}
  {{- end }}
  {{- if and $given.operators (ne $service "ingress") }}
  - {from: operators, to: {{ $service }}, ports: [{{ include "gatepost.port" (get $services $service).grpc }}]}
  {{- end }}
  {{- end }}
  - {from: topology, to: dns, ports: {{ toJson $given.dnsPorts }}}
  {{- if .Values.nats.enabled }}
  - {from: nats, to: dns, ports: {{ toJson $given.dnsPorts }}}
  {{- if gt (int .Values.nats.replicas) 1 }}
  - {from: nats, to: nats, ports: [6222]}
  {{- end }}
  {{- if and $given.keda .Values.delivery.keda.enabled }}
  - {from: keda, to: nats, ports: [8222]}
  {{- end }}
  {{- end }}
  {{- if include "gatepost.test.listener" . }}
  - {from: test, to: policy, ports: [{{ include "gatepost.port" $services.policy.grpc }}]}
  - {from: test, to: ingress, ports: {{ toJson $listeners }}}
  - {from: test, to: test, ports: [{{ include "gatepost.test.port" . }}]}
  - {from: test, to: dns, ports: {{ toJson $given.dnsPorts }}}
  - {from: delivery, to: test, ports: [{{ include "gatepost.test.port" . }}]}
  {{- end }}
{{- end -}}

{{/* (dict "root" $ "name" "policy" "ports" ports): the peers of a rule as YAML; nothing means anybody. */}}
{{- define "gatepost.peers" -}}
{{- $given := .root.Values.networkPolicy -}}
{{- if has .name (list "clients" "mail" "nameservers" "web") -}}
{{- else if has .name (list "operators" "prometheus" "keda") -}}
{{- toYaml (get $given .name) -}}
{{- else if eq .name "dns" -}}
{{- with $given.dns }}{{ toYaml . }}{{ end -}}
{{- else if eq .name "apiserver" -}}
{{- with $given.apiServer }}{{ toYaml . }}{{ end -}}
{{- else if and (eq .name "nats") (not .root.Values.nats.enabled) -}}
{{- with $given.nats }}{{ toYaml . }}{{ end -}}
{{- else -}}
- podSelector:
    matchLabels:
      {{- include "gatepost.selector" (dict "root" .root "component" .name) | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "gatepost.rulePorts" -}}
{{- $udp := has .name (list "dns" "nameservers") -}}
{{- range .ports }}
- {port: {{ . }}, protocol: TCP}
{{- if $udp }}
- {port: {{ . }}, protocol: UDP}
{{- end }}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "component" "policy"): the component's policy, from the table. */}}
{{- define "gatepost.networkpolicy" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $edges := (include "gatepost.edges" $root | fromYaml).edges -}}
{{- $more := get $root.Values.networkPolicy.extra $component | default dict -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "gatepost.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- range $edges }}
    {{- if eq .to $component }}
    # from {{ .from }}
    - ports:
        {{- include "gatepost.rulePorts" (dict "name" .to "ports" .ports) | trim | nindent 8 }}
      {{- with include "gatepost.peers" (dict "root" $root "name" .from) }}
      from:
        {{- . | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- end }}
    {{- with $more.ingress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  egress:
    {{- range $edges }}
    {{- if eq .from $component }}
    # to {{ .to }}
    - ports:
        {{- include "gatepost.rulePorts" (dict "name" .to "ports" .ports) | trim | nindent 8 }}
      {{- with include "gatepost.peers" (dict "root" $root "name" .to) }}
      to:
        {{- . | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- end }}
    {{- with $more.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
