{{/* Name of everything in a release. */}}
{{- define "bellwether.name" -}}
{{- if contains "bellwether" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-bellwether" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "bellwether.selector" -}}
app.kubernetes.io/name: bellwether
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bellwether.labels" -}}
{{ include "bellwether.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "bellwether.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "bellwether.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{/* A value of the configuration as TOML: a text, a number, a truth value, or {env} or {file}. */}}
{{- define "bellwether.toml" -}}
{{- if kindIs "map" . }}{ {{ range $key, $value := . }}{{ $key }} = {{ $value | toJson }}{{ end }} }{{ else }}{{ . | toJson }}{{ end }}
{{- end }}

{{/* Lines of a section from a map of values. */}}
{{- define "bellwether.settings" -}}
{{- range $key, $value := . }}
{{ $key }} = {{ include "bellwether.toml" $value }}
{{- end }}
{{- end }}

{{/* The configuration file. `role` is that of the process. */}}
{{- define "bellwether.config" -}}
{{- $values := .Values }}
[tables]
root = {{ $values.tables.root | toJson }}
{{- with $values.tables.options }}

[tables.options]
{{- include "bellwether.settings" . }}
{{- end }}

[kafka]
brokers = {{ $values.kafka.brokers | toJson }}
topics = {{ $values.kafka.topics | toJson }}
group = {{ $values.kafka.group | toJson }}
job = {{ $values.kafka.job | toJson }}
{{- if has .role (list "run" "ingest") }}
# A restart within the session timeout moves no partition.
instance_id = { env = "POD_NAME" }
{{- end }}
{{- include "bellwether.settings" $values.kafka.settings }}
{{- with $values.kafka.security }}

[kafka.security]
{{- include "bellwether.settings" . }}
{{- end }}
{{- with $values.kafka.extensions }}

[kafka.security.extensions]
{{- include "bellwether.settings" . }}
{{- end }}
{{- with $values.kafka.properties }}

[kafka.properties]
{{- range $key, $value := . }}
{{ $key | toJson }} = {{ kindIs "string" $value | ternary $value (toJson $value) | toJson }}
{{- end }}
{{- end }}

[serve]
# Probes and Prometheus come from outside of the pod; networkPolicy says who may.
address = "0.0.0.0:9464"
{{- include "bellwether.settings" $values.serve.settings }}

[aggregate]
shards = {{ $values.aggregate.shards | int }}
{{- if eq .role "aggregate" }}
only_shards = [{ env = "SHARD" }]
{{- end }}
{{- include "bellwether.settings" $values.aggregate.settings }}
{{- if and $values.api.enabled (has .role (list "run" "serve")) }}

[api]
serve = {{ eq .role "run" }}
address = "0.0.0.0:9465"
certificate_file = "/run/secrets/bellwether-tls/tls.crt"
key_file = "/run/secrets/bellwether-tls/tls.key"
tokens_file = "/run/secrets/bellwether-tokens/tokens.toml"
{{- include "bellwether.settings" $values.api.settings }}
{{- end }}
{{- with $values.config }}

{{ . | trim }}
{{- end }}
{{- end }}

{{/* Fails with a remedy if values contradict one another; what concerns one value is in values.schema.json. */}}
{{- define "bellwether.check" -}}
{{- $values := .Values }}
{{- if and (eq $values.mode "apart") (not (contains "://" $values.tables.root)) }}
{{- fail "mode `apart` needs tables in an object store, which all processes reach: set tables.root to s3://, gs:// or az://BUCKET/PREFIX, or mode to `together`" }}
{{- end }}
{{- if and (eq $values.mode "together") (not (contains "://" $values.tables.root)) (not $values.persistence.enabled) }}
{{- fail "tables.root is a folder of a pod that keeps nothing: set persistence.enabled, or tables.root to s3://, gs:// or az://BUCKET/PREFIX" }}
{{- end }}
{{- if and (not (contains "://" $values.tables.root)) (not (hasPrefix "/var/lib/bellwether/" $values.tables.root)) }}
{{- fail "tables.root must be below /var/lib/bellwether, where the volume is mounted, or s3://, gs:// or az://BUCKET/PREFIX" }}
{{- end }}
{{- if and $values.api.enabled (or (not $values.api.tlsSecret) (not $values.api.tokensSecret)) }}
{{- fail "api.enabled needs api.tlsSecret and api.tokensSecret: queries from outside of the pod need TLS and a token" }}
{{- end }}
{{- if and (eq $values.mode "apart") $values.deliver.enabled (not (contains "[deliver.sinks." $values.config)) }}
{{- fail "deliver.enabled needs a sink: add [deliver.sinks.NAME] to config" }}
{{- end }}
{{- if gt ($values.ingest.autoscaling.minReplicas | int) ($values.ingest.autoscaling.maxReplicas | int) }}
{{- fail "ingest.autoscaling.minReplicas is above maxReplicas" }}
{{- end }}
{{- $written := dict "kafka" (list "brokers" "topics" "group" "job" "instance_id") "serve" (list "address") "aggregate" (list "shards" "only_shards")
  "api" (list "serve" "address" "certificate_file" "key_file" "tokens_file") }}
{{- range $section, $keys := $written }}
{{- range $key := $keys }}
{{- if hasKey (index $values $section).settings $key }}
{{- fail (printf "remove %s.settings.%s: the chart writes this key, from other values" $section $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- with $values.config }}
{{- if not (regexMatch `\A(\s*(#.*)?\n)*\s*\[` .) }}
{{- fail "config must begin with a section, such as [deliver.sinks.chat]: keys before it would belong to a section that the chart writes" }}
{{- end }}
{{- end }}
{{- range list "tables" "kafka" "serve" "api" "aggregate" }}
{{- if regexMatch (printf `(?m)^\s*\[%s(\.[a-z]+)?\]` .) $values.config }}
{{- fail (printf "config has [%s], which the chart writes: use the values of `%s` instead" . .) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The workloads: a list of {name, role, kind, replicas, resources}. Shards have a StatefulSet for each copy. */}}
{{- define "bellwether.workloads" -}}
{{- $values := .Values }}
{{- if eq $values.mode "together" }}
- {name: run, role: run, kind: StatefulSet, replicas: 1, resources: {{ $values.run.resources | toJson }}}
{{- else }}
- {name: ingest, role: ingest, kind: StatefulSet, replicas: {{ $values.ingest.replicas | int }}, resources: {{ $values.ingest.resources | toJson }}}
{{- range $copy := until ($values.aggregate.copies | int) }}
- {name: aggregate-{{ $copy }}, role: aggregate, kind: StatefulSet, replicas: {{ $values.aggregate.shards | int }}, resources: {{ $values.aggregate.resources | toJson }}}
{{- end }}
- {name: watch, role: watch, kind: Deployment, replicas: {{ $values.watch.replicas | int }}, resources: {{ $values.watch.resources | toJson }}}
{{- range $role := list "deliver" "evals" }}
{{- with index $values $role }}
{{- if .enabled }}
- {name: {{ $role }}, role: {{ $role }}, kind: Deployment, replicas: {{ .replicas | int }}, resources: {{ .resources | toJson }}}
{{- end }}
{{- end }}
{{- end }}
{{- if $values.api.enabled }}
- {name: api, role: serve, kind: Deployment, replicas: {{ $values.api.replicas | int }}, resources: {{ $values.api.resources | toJson }}}
{{- end }}
{{- end }}
{{- end }}
