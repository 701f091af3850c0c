{{/*
What the services refuse in a configuration and no schema can: values that do not go together, and
bounds of sizes and durations, for which the unit has to be known.
*/}}

{{/* (dict "root" $ "config" $config) */}}
{{- define "gatepost.config.rules" -}}
{{- include "gatepost.rules.smtp" .config.smtp -}}
{{- include "gatepost.rules.delivery" . -}}
{{- include "gatepost.rules.keys" . -}}
{{- include "gatepost.rules.nats" .config.nats -}}
{{- $dns := .config.dns | default dict -}}
{{- include "gatepost.rules.order" (list "config.dns" (list "attempt_timeout" (dig "attempt_timeout" "2s" $dns)) (list "timeout" (dig "timeout" "5s" $dns))) -}}
{{- range $domain := dig "domains" "local" list .config -}}
{{- range $other, $hop := dig "domains" "relay" dict $.config -}}
{{- if eq (lower $domain) (lower $other) -}}
{{- fail (printf "config.domains: %s is both a local and a relay domain" $domain) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "gatepost.rules.together" (list "config.services.tls" .config.services.tls "certificate_file" "key_file" "ca_file") -}}
{{- end -}}

{{- define "gatepost.rules.smtp" -}}
{{- $limits := .limits | default dict -}}
{{- if lt (include "gatepost.size" (dig "content_memory" "128MiB" $limits) | float64) 4194304.0 -}}
{{- fail "config.smtp.limits.content_memory: at least 4MiB" -}}
{{- end -}}
{{- $header := include "gatepost.size" (dig "header_size" "256KiB" $limits) | float64 -}}
{{- if or (lt $header 1024.0) (gt $header 393216.0) -}}
{{- fail "config.smtp.limits.header_size: 1KiB to 384KiB" -}}
{{- end -}}
{{- $names := list -}}
{{- range .listeners -}}
{{- if has .name $names -}}
{{- fail (printf "config.smtp.listeners: two of them have the name %s" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}

{{- define "gatepost.rules.delivery" -}}
{{- $delivery := .config.delivery | default dict -}}
{{- $backoff := $delivery.backoff | default dict -}}
{{- include "gatepost.rules.order" (list "config.delivery.backoff" (list "initial" (dig "initial" "5s" $backoff)) (list "limit" (dig "limit" "5m" $backoff))) -}}
{{- $concurrency := $delivery.concurrency | default dict -}}
{{- $initial := dig "initial" 5 $concurrency | int -}}
{{- $limit := dig "limit" 20 $concurrency | int -}}
{{- $total := dig "total" 400 $concurrency | int -}}
{{- if or (gt $initial $limit) (gt $limit $total) -}}
{{- fail (printf "config.delivery.concurrency: initial (%d) must not exceed limit (%d), nor limit total (%d)" $initial $limit $total) -}}
{{- end -}}
{{- $smarthost := $delivery.smarthost | default dict -}}
{{- if and .root.Values.delivery.smarthostSecret.name (not (and $smarthost.host $smarthost.username)) -}}
{{- fail "delivery.smarthostSecret.name: a password needs config.delivery.smarthost.host and config.delivery.smarthost.username" -}}
{{- end -}}
{{- include "gatepost.rules.smarthosts" (list "config.delivery.smarthost" $smarthost) -}}
{{- range $domain, $other := $delivery.sender_smarthosts -}}
{{- include "gatepost.rules.smarthosts" (list (printf "config.delivery.sender_smarthosts.%s" $domain) $other) -}}
{{- end -}}
{{- end -}}

{{/* (list path smarthost): it and its alternatives. */}}
{{- define "gatepost.rules.smarthosts" -}}
{{- $path := index . 0 -}}
{{- $first := index . 1 -}}
{{- include "gatepost.rules.credentials" . -}}
{{- range $number, $other := $first.alternatives -}}
{{- $where := printf "%s.alternatives[%d]" $path $number -}}
{{- if not $other.host -}}
{{- fail (printf "%s: an alternative needs a host" $where) -}}
{{- end -}}
{{- if not $first.host -}}
{{- fail (printf "%s: needs a host to be an alternative to" $where) -}}
{{- end -}}
{{- include "gatepost.rules.credentials" (list $where $other) -}}
{{- end -}}
{{- end -}}

{{- define "gatepost.rules.credentials" -}}
{{- $path := index . 0 -}}
{{- with index . 1 -}}
{{- if and .password_file .token_file -}}
{{- fail (printf "%s: password_file and token_file exclude each other" $path) -}}
{{- end -}}
{{- if and .username (not (or .password_file .token_file)) -}}
{{- fail (printf "%s.username: needs a password, of delivery.smarthostSecret or in a password_file (or token_file) that is mounted" $path) -}}
{{- end -}}
{{- if and (or .password_file .token_file) (not .username) -}}
{{- fail (printf "%s: password_file and token_file need a username" $path) -}}
{{- end -}}
{{- if and .username (not .host) -}}
{{- fail (printf "%s.username: credentials need a host" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gatepost.rules.keys" -}}
{{- $keys := .config.keys -}}
{{- if lt (include "gatepost.milliseconds" (dig "check_interval" "1m" $keys) | float64) 1000.0 -}}
{{- fail "config.keys.check_interval: at least 1s" -}}
{{- end -}}
{{- $lifetime := include "gatepost.milliseconds" (dig "signature_lifetime" "0" $keys) | float64 -}}
{{- if and (gt $lifetime 0.0) (lt $lifetime 3600000.0) -}}
{{- fail "config.keys.signature_lifetime: 0 for none, or at least 1h" -}}
{{- end -}}
{{- if eq $keys.store "file" -}}
{{- $directory := $keys.directory | default "/var/lib/gatepost/keys" -}}
{{- $mounted := false -}}
{{- range .root.Values.keys.extraVolumeMounts -}}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) (printf "%s/" $directory) -}}
{{- $mounted = true -}}
{{- end -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "config.keys.store: file needs a volume that outlives the pods at %s (config.keys.directory): keys.extraVolumes and keys.extraVolumeMounts" $directory) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "gatepost.rules.nats" -}}
{{- $encrypted := 0 -}}
{{- range .urls -}}
{{- if hasPrefix "tls://" . -}}
{{- $encrypted = add1 $encrypted -}}
{{- end -}}
{{- end -}}
{{- if and $encrypted (lt (int $encrypted) (len .urls)) -}}
{{- fail "config.nats.urls: must begin with tls:// all, or none of them" -}}
{{- end -}}
{{- $files := .tls | default dict -}}
{{- if and .urls (not $encrypted) (or $files.ca_file $files.certificate_file $files.key_file) -}}
{{- fail "config.nats.urls: must begin with tls://, since TLS towards NATS is configured" -}}
{{- end -}}
{{- include "gatepost.rules.together" (list "config.nats.tls" $files "certificate_file" "key_file") -}}
{{- end -}}

{{/* (list path map key key…): all of the keys are there, or none. */}}
{{- define "gatepost.rules.together" -}}
{{- $path := index . 0 -}}
{{- $map := index . 1 | default dict -}}
{{- $keys := slice . 2 -}}
{{- $there := list -}}
{{- range $keys -}}
{{- if get $map . -}}
{{- $there = append $there . -}}
{{- end -}}
{{- end -}}
{{- if and $there (lt (len $there) (len $keys)) -}}
{{- fail (printf "%s: %s go together" $path (join ", " $keys)) -}}
{{- end -}}
{{- end -}}

{{/* (list path (list name duration) (list name duration)): the first is not longer than the second. */}}
{{- define "gatepost.rules.order" -}}
{{- $first := index . 1 -}}
{{- $second := index . 2 -}}
{{- if gt (include "gatepost.milliseconds" (index $first 1) | float64) (include "gatepost.milliseconds" (index $second 1) | float64) -}}
{{- fail (printf "%s: %s (%s) must not exceed %s (%s)" (index . 0) (index $first 0) (toString (index $first 1)) (index $second 0) (toString (index $second 1))) -}}
{{- end -}}
{{- end -}}
