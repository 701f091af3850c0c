{{/*
What an upgrade finds of NATS and cannot turn into what the values say. Where there is no cluster to
ask, nothing is found here; files/run-nats.sh looks at the volume itself.
*/}}
{{- define "gatepost.nats.check" -}}
{{- $name := include "gatepost.name" (dict "root" . "component" "nats") -}}
{{- $set := lookup "apps/v1" "StatefulSet" .Release.Namespace $name -}}
{{- $size := .Values.nats.storage.size -}}
{{- $claims := list -}}
{{- range $number := until 3 -}}
{{- $claim := printf "data-%s-%d" $name $number -}}
{{- with lookup "v1" "PersistentVolumeClaim" $.Release.Namespace $claim -}}
{{- $claims = append $claims $number -}}
{{- $has := dig "spec" "resources" "requests" "storage" "" . -}}
{{- if and (not $set) (lt (include "gatepost.octets" $has | int64) (include "gatepost.octets" $size | int64)) -}}
{{- fail (printf "nats.storage.size: the volume of %s has %s and not %s; see \"A larger volume for NATS\" in docs/operate.md" $claim $has $size) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $wanted := int .Values.nats.replicas -}}
{{- $nodes := int (dig "spec" "replicas" 0 $set) -}}
{{- if not $nodes -}}
{{- /* Scaled down for a while, or uninstalled; a cluster has volumes besides the first. */ -}}
{{- $nodes = ternary $wanted (ternary 3 1 (gt (int (last $claims)) 0)) (empty $claims) -}}
{{- end -}}
{{- if ne $nodes $wanted -}}
{{- fail (printf "nats.replicas: %s has %d of them, and what it stored would be lost with %d; see \"From one NATS node to three\" in docs/operate.md" $name $nodes $wanted) -}}
{{- end -}}
{{- range $template := dig "spec" "volumeClaimTemplates" list $set -}}
{{- $has := $template.spec.resources.requests.storage -}}
{{- if ne (include "gatepost.octets" $has) (include "gatepost.octets" $size) -}}
{{- fail (printf "nats.storage.size: the volumes of %s have %s, which an upgrade cannot make %s; see \"A larger volume for NATS\" in docs/operate.md" $name $has $size) -}}
{{- end -}}
{{- $class := $template.spec.storageClassName | default "" -}}
{{- if ne $class $.Values.nats.storage.className -}}
{{- fail (printf "nats.storage.className: the volumes of %s have the class %q, which an upgrade cannot make %q; see \"A larger volume for NATS\" in docs/operate.md" $name $class $.Values.nats.storage.className) -}}
{{- end -}}
{{- end -}}
{{- end -}}
