{{/* The milliseconds of "30s", "1.5m" or 0, as the services read durations. */}}
{{- define "gatepost.milliseconds" -}}
{{- $text := toString . | trim -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $unit := regexFind "[a-z]+$" $text | default "s" -}}
{{- mulf $number (get (dict "ms" 1.0 "s" 1e3 "m" 60e3 "h" 3600e3 "d" 86400e3) $unit) -}}
{{- end -}}

{{/* The seconds of a duration, rounded up. */}}
{{- define "gatepost.seconds" -}}
{{- divf (include "gatepost.milliseconds" . | float64) 1e3 | ceil | int -}}
{{- end -}}

{{/* The octets of "100MB", "1.5MiB" or a number, as the services read sizes. */}}
{{- define "gatepost.size" -}}
{{- if kindIs "string" . -}}
{{- $text := trim . -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $unit := regexFind "[A-Za-z]+$" $text | default "B" -}}
{{- mulf $number (get (dict "B" 1.0 "kB" 1e3 "KB" 1e3 "MB" 1e6 "GB" 1e9 "TB" 1e12 "KiB" 1024.0 "MiB" 1048576.0 "GiB" 1073741824.0 "TiB" 1099511627776.0) $unit) -}}
{{- else -}}
{{- float64 . -}}
{{- end -}}
{{- end -}}
