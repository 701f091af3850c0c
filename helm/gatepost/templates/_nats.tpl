{{/* The NATS server of the chart: sizes from stated needs, and who may do what. */}}

{{/* Octets of "10Gi", as Kubernetes may write it too. */}}
{{- define "gatepost.octets" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[A-Za-z]+$" . -}}
{{- mul $number (get (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624) $unit) -}}
{{- end -}}

{{/*
How much the server may store: 85 % of the volume. The rest is for what compaction writes before it
removes; a volume that is really full stops the server, a limit only refuses mail with 452.
*/}}
{{- define "gatepost.nats.storageLimit" -}}
{{- div (mul (include "gatepost.octets" .Values.nats.storage.size | int64) 85) 100 -}}
{{- end -}}

{{/*
Memory in MiB: 512 for the server, and 4 KiB for each deferred record. The server loads all records
that are due at once: 3.8 GB for a million of 1 KB each, after a long absence.
*/}}
{{- define "gatepost.nats.memoryMi" -}}
{{- add 512 (div (mul (int64 .Values.nats.deferredRecords) 4) 1024) -}}
{{- end -}}

{{/* The users: what each may publish besides questions that all ask, as lists of subjects. */}}
{{- define "gatepost.nats.users" -}}
ingress:
  - queue.ready.*.*
  - content.*.*
  # What was stored for a mail that was not accepted in the end is removed again.
  - $JS.API.DIRECT.GET.QUEUE.>
  - $JS.API.STREAM.MSG.DELETE.QUEUE
  - $JS.API.STREAM.PURGE.CONTENT
  {{- include "gatepost.nats.bucket" "logins" | nindent 2 }}
policy:
  - events.*.*
  # Verdicts that were given are read again.
  - $JS.API.DIRECT.GET.EVENTS
  - $JS.API.DIRECT.GET.EVENTS.>
  {{- include "gatepost.nats.follow" "EVENTS" | nindent 2 }}
  {{- range list "accounts" "callouts" }}
  {{- include "gatepost.nats.bucket" . | nindent 2 }}
  {{- end }}
delivery:
  - queue.*.*.*
  - content.*.*
  - events.*.*
  - dead.*
  - $JS.ACK.QUEUE.delivery.>
  - $JS.API.CONSUMER.MSG.NEXT.QUEUE.delivery
  {{- range list "QUEUE" "CONTENT" "EVENTS" "DEAD" }}
  - $JS.API.DIRECT.GET.{{ . }}
  - $JS.API.DIRECT.GET.{{ . }}.>
  {{- end }}
  # Suppressions and notes on destinations are removed when they are out of date.
  {{- range list "QUEUE" "CONTENT" "DEAD" "KV_suppressions" "KV_destinations" }}
  - $JS.API.STREAM.PURGE.{{ . }}
  {{- end }}
  - $JS.API.STREAM.MSG.DELETE.QUEUE
  - $JS.API.STREAM.MSG.DELETE.DEAD
  # `gatepost queue watch` follows the events.
  {{- include "gatepost.nats.follow" "EVENTS" | nindent 2 }}
  {{- range list "suppressions" "destinations" "mta_sts" }}
  {{- include "gatepost.nats.bucket" . | nindent 2 }}
  {{- end }}
topology:
  - $JS.API.STREAM.CREATE.*
  # A bucket that an older release made without a bound gets one.
  - $JS.API.STREAM.UPDATE.KV_callouts
  # How long events are kept, and how many, is for the operator to change.
  - $JS.API.STREAM.UPDATE.EVENTS
  - $JS.API.CONSUMER.CREATE.QUEUE.*
{{- end -}}

{{/* A key-value bucket, read and written. Listing its keys takes a consumer. */}}
{{- define "gatepost.nats.bucket" -}}
- $KV.{{ . }}.>
- $JS.API.DIRECT.GET.KV_{{ . }}
- $JS.API.DIRECT.GET.KV_{{ . }}.>
{{ include "gatepost.nats.follow" (printf "KV_%s" .) }}
{{- end -}}

{{/* A stream, read from some point on by consumers of one's own. */}}
{{- define "gatepost.nats.follow" -}}
- $JS.API.CONSUMER.CREATE.{{ . }}
- $JS.API.CONSUMER.CREATE.{{ . }}.>
- $JS.API.CONSUMER.DELETE.{{ . }}.>
- $JS.API.CONSUMER.INFO.{{ . }}.>
- $JS.FC.{{ . }}.>
{{- end -}}

{{- define "gatepost.nats.conf" -}}
{{- $limit := include "gatepost.nats.storageLimit" . | int64 -}}
{{- $replicas := int .Values.nats.replicas -}}
server_name: $POD_NAME
port: 4222
http_port: 8222
{{- if .Values.nats.tls.enabled }}
tls { cert_file: "/etc/nats-tls/tls.crt", key_file: "/etc/nats-tls/tls.key" }
{{- end }}
max_payload: 1MB
jetstream {
  store_dir: "/data"
  # An acknowledged message survives a crash of the machine: that is what a 250 promises.
  sync_interval: always
  max_file_store: {{ $limit }}
  max_memory_store: 1MB
}
accounts {
  GATEPOST {
    # A stream counts once for each of its replicas.
    jetstream: { max_file: {{ mul $limit $replicas }}, max_mem: 1MB }
    users: [
      {{- range $user, $subjects := include "gatepost.nats.users" . | fromYaml }}
      {
        user: {{ $user }}
        password: ${{ upper $user }}_PASSWORD
        permissions: {
          publish: [
            "$JS.API.INFO"
            "$JS.API.STREAM.INFO.*"
            "$JS.API.CONSUMER.INFO.QUEUE.*"
            {{- range $subjects }}
            {{ quote . }}
            {{- end }}
          ]
          # Answers, and nobody else's.
          subscribe: ["_INBOX.{{ $user }}.>"]
        }
      }
      {{- end }}
    ]
  }
  SYS {}
}
system_account: SYS
{{- if gt $replicas 1 }}
cluster {
  name: {{ include "gatepost.fullname" . }}
  port: 6222
  authorization { user: route, password: $ROUTE_PASSWORD }
  {{- if .Values.nats.tls.enabled }}
  tls { cert_file: "/etc/nats-tls/tls.crt", key_file: "/etc/nats-tls/tls.key", ca_file: "/etc/nats-tls/ca.crt", verify: true }
  {{- end }}
  # With the password in each, which only the environment can give.
  routes: $ROUTES
}
lame_duck_grace_period: 5s
lame_duck_duration: 30s
{{- end }}
{{- end -}}

{{/* What $ROUTES is: every node by its name. Kubernetes puts the password in. */}}
{{- define "gatepost.nats.routes" -}}
{{- $nodes := include "gatepost.host" (dict "root" . "component" "nats-nodes") -}}
{{- $routes := list -}}
{{- range $number := until (int .Values.nats.replicas) -}}
{{- $node := printf "%s-%d.%s" (include "gatepost.name" (dict "root" $ "component" "nats")) $number $nodes -}}
{{- $routes = append $routes (printf "nats-route://route:$(ROUTE_PASSWORD)@%s:6222" $node) -}}
{{- end -}}
{{- toJson $routes -}}
{{- end -}}
