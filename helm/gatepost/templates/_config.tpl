{{/*
From `config:` to what the objects need. The chart lays the operator's `config:` over its own
defaults (names in this release, paths of mounted files); ports, probes and times are then read from
the result, so that they cannot differ from what the services do.
*/}}

{{/* (list under over): lay `over` on `under`, in place: maps are joined, all else is replaced. */}}
{{- define "gatepost.lay" -}}
{{- $under := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $under $key)) -}}
{{- include "gatepost.lay" (list (get $under $key) $value) -}}
{{- else -}}
{{- $_ := set $under $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "component" "policy"): the gatepost.yaml of a component. */}}
{{- define "gatepost.config" -}}
{{- $root := .root -}}
{{- $config := include "gatepost.config.defaults" . | fromYaml -}}
{{- include "gatepost.lay" (list $config (deepCopy $root.Values.config)) -}}
{{- range $component := list "policy" "delivery" "keys" -}}
{{- $service := get $config.services $component -}}
{{- if not $service.target -}}
{{- $_ := set $service "target" (printf "%s:%s" (include "gatepost.host" (dict "root" $root "component" $component)) (include "gatepost.port" $service.grpc)) -}}
{{- end -}}
{{- end -}}
{{- with $root.Values.ingress.proxyProtocol.trusted -}}
{{- range $config.smtp.listeners -}}
{{- if not .proxy_protocol -}}
{{- $_ := set . "proxy_protocol" (dict "trusted" $root.Values.ingress.proxyProtocol.trusted) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "gatepost.config.check" (dict "root" $root "config" $config) -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "gatepost.config.defaults" -}}
smtp:
  hostname: {{ include "gatepost.host" (dict "root" .root "component" "ingress") }}
  tls:
    certificate_file: /etc/gatepost/tls/tls.crt
    key_file: /etc/gatepost/tls/tls.key
{{- $testing := include "gatepost.test.listener" .root }}
{{- if or $testing .root.Values.delivery.smarthostSecret.name }}
delivery:
  {{- if .root.Values.delivery.smarthostSecret.name }}
  smarthost:
    password_file: /etc/gatepost/smarthost/password
  {{- end }}
  {{- if $testing }}
  sender_smarthosts:
    {{ include "gatepost.test.domain" .root }}: {host: {{ include "gatepost.host" (dict "root" .root "component" "test") }}, port: {{ include "gatepost.test.port" .root }}}
  {{- end }}
{{- end }}
{{- if .root.Values.accounts.enabled }}
recipients:
  accounts_file: /etc/gatepost/accounts/accounts.yaml
{{- end }}
keys:
  store: kubernetes
  namespace: {{ .root.Values.keys.namespace | default .root.Release.Namespace }}
nats:
  {{- if .root.Values.nats.enabled }}
  urls: ["{{ ternary "tls" "nats" .root.Values.nats.tls.enabled }}://{{ include "gatepost.host" (dict "root" .root "component" "nats") }}:4222"]
  replicas: {{ .root.Values.nats.replicas }}
  {{- end }}
  {{- if .root.Values.nats.tls.enabled }}
  tls:
    ca_file: /etc/gatepost/nats-tls/ca.crt
  {{- end }}
  username: {{ .component }}
  password_file: /etc/gatepost/nats/password
services:
  ingress: {http: "0.0.0.0:9101"}
  policy: {http: "0.0.0.0:9102", grpc: "0.0.0.0:7100"}
  delivery: {http: "0.0.0.0:9103", grpc: "0.0.0.0:7300"}
  keys: {http: "0.0.0.0:9104", grpc: "0.0.0.0:7200"}
  {{- if .root.Values.grpc.tls.enabled }}
  tls:
    certificate_file: /etc/gatepost/grpc-tls/tls.crt
    key_file: /etc/gatepost/grpc-tls/tls.key
    ca_file: /etc/gatepost/grpc-tls/ca.crt
  {{- end }}
mailbox:
  directory: /var/mail/gatepost
auth:
  tokens_directory: /etc/gatepost/tokens
{{- end -}}

{{/* The account that is made where nobody names one: a login that submits mail, and no mailbox. */}}
{{- define "gatepost.accounts.address" -}}
{{- $config := include "gatepost.config" (dict "root" . "component" "policy") | fromYaml -}}
{{- .Values.accounts.address | default (printf "submission@%s" $config.smtp.hostname) -}}
{{- end -}}

{{/* What the schema of values cannot say, because it takes two keys or a pod to see it. */}}
{{- define "gatepost.config.check" -}}
{{- $config := .config -}}
{{- include "gatepost.scaling.check" .root -}}
{{- include "gatepost.config.rules" . -}}
{{- if and (not .root.Values.nats.enabled) (not (dig "nats" "urls" "" $config)) -}}
{{- fail "config.nats.urls: must name your servers when nats.enabled is false" -}}
{{- end -}}
{{- if and (not .root.Values.nats.enabled) .root.Values.nats.tls.enabled (not .root.Values.nats.tls.existingSecret) -}}
{{- fail "nats.tls.existingSecret: name the Secret whose ca.crt certifies your own NATS servers" -}}
{{- end -}}
{{- if and .root.Values.ingress.proxyProtocol.provider (not .root.Values.ingress.proxyProtocol.trusted) -}}
{{- fail "ingress.proxyProtocol.trusted: name the load balancer's addresses, as the pods see them; from others its header is not believed" -}}
{{- end -}}
{{- if eq (dig "mailbox" "kind" "maildir" $config) "lmtp" -}}
{{- if not $config.mailbox.lmtp -}}
{{- fail "config.mailbox.lmtp: kind lmtp needs the host and port of the mail store" -}}
{{- end -}}
{{- else if and (dig "domains" "local" "" $config) (not .root.Values.mailbox.enabled) -}}
{{- fail "config.domains.local: local mailboxes need a volume that outlives the pods; set mailbox.enabled, or config.mailbox.kind to lmtp for a mail store of yours" -}}
{{- end -}}
{{- range $config.smtp.listeners -}}
{{- if lt (int .port) 1024 -}}
{{- fail (printf "config.smtp.listeners: the port of %s is %d; pods may only use 1024 and above. The port of the Service is ingress.service.ports.%s" .name (int .port) .name) -}}
{{- end -}}
{{- if gt (len .name) 15 -}}
{{- fail (printf "config.smtp.listeners: the name %s is longer than the 15 letters that Kubernetes gives the name of a port" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The port of "0.0.0.0:9101". */}}
{{- define "gatepost.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/*
How long a pod may take to end: the pause until load balancers have heard of it, the grace period of
the configuration, and what the process skeleton needs besides (four times five seconds).
*/}}
{{- define "gatepost.terminationSeconds" -}}
{{- $grace := include "gatepost.seconds" .config.services.grace_period | int -}}
{{- add .root.Values.pods.stopDelaySeconds $grace 20 -}}
{{- end -}}

{{/* The parts of a configuration that take effect only when a process starts. */}}
{{- define "gatepost.config.restart" -}}
{{- $parts := pick . "services" "nats" "keys" "dns" "auth" "log" -}}
{{- $_ := set $parts "smtp" (pick .smtp "hostname" "listeners") -}}
{{- $_ := set $parts "encrypted" (not (empty (.smtp.tls | default dict).certificate_file)) -}}
{{- toYaml $parts | sha256sum -}}
{{- end -}}

{{/* (dict "root" $ "component" "policy"): the ConfigMap of a component. */}}
{{- define "gatepost.configmap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "gatepost.metadata" . | nindent 2 }}
data:
  gatepost.yaml: |
    {{- include "gatepost.config" . | nindent 4 }}
{{- end -}}

{{/*
Ports of next hops that the configuration names, besides 25: "smtp:host:587" of a relay domain, the
mail store's, and those of all smarthosts.
*/}}
{{- define "gatepost.config.hopPorts" -}}
{{- $ports := list 25 -}}
{{- range $domain, $hop := dig "domains" "relay" dict . -}}
{{- $port := regexFind ":[0-9]+$" $hop | trimPrefix ":" -}}
{{- if $port -}}
{{- $ports = append $ports (int $port) -}}
{{- end -}}
{{- end -}}
{{- if eq (dig "mailbox" "kind" "maildir" .) "lmtp" -}}
{{- $ports = append $ports (include "gatepost.port" .mailbox.lmtp | int) -}}
{{- end -}}
{{- $smarthosts := list (dig "delivery" "smarthost" dict .) -}}
{{- range $domain, $smarthost := omit (dig "delivery" "sender_smarthosts" dict .) (include "gatepost.test.domain" .) -}}
{{- $smarthosts = append $smarthosts $smarthost -}}
{{- end -}}
{{- range $smarthosts -}}
{{- range prepend (.alternatives | default list) . -}}
{{- if .host -}}
{{- $ports = append $ports (.port | default (ternary 587 25 (not (empty .username))) | int) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{/* "true" if policy asks other servers whether a sender can be reached. */}}
{{- define "gatepost.config.callouts" -}}
{{- $actions := list (dig "policy" "actions" dict .) -}}
{{- range $domain, $other := dig "policy" "domains" dict . -}}
{{- $actions = append $actions ($other.actions | default dict) -}}
{{- end -}}
{{- range $actions -}}
{{- if and .sender_unreachable (ne .sender_unreachable "accept") -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (list "10.0.0.5:5353" 53): the port of "host:port" or "[address]:port"; the other one without. */}}
{{- define "gatepost.portOr" -}}
{{- if regexMatch `^([^:\[\]]*|\[[^\[\]]*\]):[0-9]+$` (index . 0 | trim) -}}
{{- include "gatepost.port" (index . 0 | trim) -}}
{{- else -}}
{{- index . 1 -}}
{{- end -}}
{{- end -}}

{{/* (dict "ports" list "servers" list): these ports, and those of DNS servers that the configuration names. */}}
{{- define "gatepost.config.dnsPorts" -}}
{{- $ports := list -}}
{{- range .ports -}}
{{- $ports = append $ports (int .) -}}
{{- end -}}
{{- range .servers -}}
{{- $ports = append $ports (include "gatepost.portOr" (list . 53) | int) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{/* (dict "root" $ "config" config): where NATS is reached; in a pod of ours at its own port, whatever a Service says. */}}
{{- define "gatepost.config.natsPorts" -}}
{{- $ports := list -}}
{{- if .root.Values.nats.enabled -}}
{{- $ports = list 4222 -}}
{{- else -}}
{{- range .config.nats.urls -}}
{{- $place := regexReplaceAll `^[a-z]+://([^@/]*@)?` . "" | regexFind `^[^/?]*` -}}
{{- $ports = append $ports (include "gatepost.portOr" (list $place 4222) | int) -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
