{{- define "streamlag.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "streamlag.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "streamlag.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "streamlag.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "streamlag.selector" -}}
app.kubernetes.io/name: {{ include "streamlag.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "streamlag.labels" -}}
{{ include "streamlag.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "streamlag.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* Whether its pods have a number or a volume of their own. */}}
{{- define "streamlag.stateful" -}}
{{- if or (gt (int .Values.shards) 1) .Values.history.enabled .Values.audit.enabled -}}yes{{- end -}}
{{- end -}}

{{/* Of everything on the port. */}}
{{- define "streamlag.scheme" -}}
{{- if kindIs "bool" .Values.https -}}
{{- ternary "https" "http" .Values.https -}}
{{- else -}}
{{- ternary "https" "http" (ne .Values.secrets.tls.name "") -}}
{{- end -}}
{{- end -}}

{{/* The variable of extraEnv with the web configuration file, if it has one. */}}
{{- define "streamlag.webConfigOfEnv" -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "STREAMLAG_WEB_CONFIG_FILE" -}}
{{- toYaml (list .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether a kind of the Prometheus operator is to be made: list ROOT ENABLED. */}}
{{- define "streamlag.operated" -}}
{{- $root := index . 0 -}}
{{- $enabled := index . 1 -}}
{{- if kindIs "bool" $enabled -}}
{{- if $enabled -}}yes{{- end -}}
{{- else if $root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}yes{{- end -}}
{{- end -}}

{{/* The volumes that are written to: name, path and values. */}}
{{- define "streamlag.volumesWritten" -}}
history: /var/lib/streamlag
audit: /var/lib/streamlag-audit
{{- end -}}

{{/* The configuration file. YAML reads on and off as booleans, streamlag does not. */}}
{{- define "streamlag.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- range prepend (default list $config.targets) $config -}}
{{- if kindIs "bool" .consumers -}}
{{- $_ := set . "consumers" (ternary "on" "off" .consumers) -}}
{{- end -}}
{{- end -}}
{{- with $config.remediation -}}
{{- if $.Values.audit.enabled -}}
{{- $_ := set . "audit_file" "/var/lib/streamlag-audit/audit.jsonl" -}}
{{- end -}}
{{- range .rules -}}
{{- if kindIs "bool" .mode -}}
{{- $_ := set . "mode" "off" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "streamlag.checked" -}}
{{- $config := .Values.config -}}
{{- $targets := default list $config.targets -}}
{{- if not $targets -}}
{{- $_ := required "config.redis.url: expected the address of your Redis, such as redis://redis:6379/0, or config.targets" (dig "redis" "url" "" $config) -}}
{{- end -}}
{{- range prepend $targets $config -}}
{{- if regexMatch "://[^/@]*:[^/@]+@" (toString (dig "redis" "url" "" .)) -}}
{{- fail "config.redis.url: it has a password in it, which everybody who may read ConfigMaps would see: use secrets.redisPassword" -}}
{{- end -}}
{{- end -}}
{{- if .Values.networkPolicy.enabled -}}
{{- range prepend $targets $config -}}
{{- $url := toString (dig "redis" "url" "" .) -}}
{{- if regexMatch "^rediss?://" $url -}}
{{- $host := regexReplaceAll "^rediss?://([^/?]*@)?([^/?]*).*$" $url "${2}" -}}
{{- $port := regexFind ":[0-9]+$" (regexReplaceAll "\\[.*\\]" $host "") | trimPrefix ":" | default "6379" -}}
{{- $open := list -}}
{{- range $.Values.networkPolicy.redisPorts -}}{{- $open = append $open (toString (int .)) -}}{{- end -}}
{{- if not (has $port $open) -}}
{{- fail (printf "networkPolicy.redisPorts: expected %s among them, the port in config.redis.url" $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (include "streamlag.stateful" .) -}}
{{- fail "replicas: expected 1 where there are shards, a history or an audit: for a second exporter of each shard, install the chart a second time" -}}
{{- end -}}
{{- range $name := list "history" "audit" -}}
{{- if and (index $.Values $name "existingClaim") (gt (int $.Values.shards) 1) -}}
{{- fail (printf "%s.existingClaim: expected one shard: each needs a volume of its own" $name) -}}
{{- end -}}
{{- end -}}
{{- range dig "remediation" "rules" (list) $config -}}
{{- if and (has .mode (list "approve" "auto")) (not $.Values.audit.enabled) -}}
{{- fail (printf "audit.enabled: expected true, as a rule of config.remediation has mode %s: every act is recorded on a volume" .mode) -}}
{{- end -}}
{{- end -}}
{{- $prometheus := or (dig "history" "prometheus-url" "" $config) (dig "history" "prometheus_url" "" $config) -}}
{{- if and .Values.history.enabled $prometheus -}}
{{- fail "history.enabled: expected no config.history.prometheus-url beside it: history is in a file or in that Prometheus" -}}
{{- end -}}
{{- if and .Values.secrets.tls.name (not .Values.secrets.webConfig.name) -}}
{{- fail "secrets.tls: expected secrets.webConfig too, whose tls_server_config names tls.crt and tls.key" -}}
{{- end -}}
{{- if kindIs "bool" .Values.https -}}
{{- if and .Values.https (not .Values.secrets.webConfig.name) (not (include "streamlag.webConfigOfEnv" .)) -}}
{{- fail "https: expected secrets.webConfig, or STREAMLAG_WEB_CONFIG_FILE in extraEnv, which names the certificate" -}}
{{- end -}}
{{- if and .Values.secrets.tls.name (not .Values.https) -}}
{{- fail "https: expected auto or true, as secrets.tls has a certificate" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "streamlag.rules" -}}
{{- $replicas := or .Values.prometheusRule.replicas (gt (int .Values.replicas) 1) -}}
{{- $rules := .Files.Get (ternary "files/streamlag-replicas.rules.yml" "files/streamlag.rules.yml" $replicas) -}}
{{- /* The job is the Service's name label. It stands in an expression, and with its quotes escaped in a description. */ -}}
{{- $job := include "streamlag.name" . -}}
{{- $rules = $rules | replace "job=\"streamlag\"" (printf "job=%q" $job) -}}
{{- $rules = $rules | replace "job=\\\"streamlag\\\"" (printf "job=\\\"%s\\\"" $job) -}}
{{- range regexSplit "\n" $rules -1 -}}
{{- if not (or (hasPrefix "#" .) (eq . "---")) }}
{{ . }}
{{- end -}}
{{- end -}}
{{- if .Values.prometheusRule.fleet -}}
{{- $begun := false -}}
{{- range regexSplit "\n" (.Files.Get "files/streamlag-fleet.rules.yml") -1 -}}
{{- if $begun }}
{{ . }}
{{- end -}}
{{- if hasPrefix "groups:" . -}}{{- $begun = true -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "streamlag.env" -}}
- name: STREAMLAG_CONFIG_FILE
  value: /etc/streamlag/streamlag.yml
- name: STREAMLAG_WEB_LISTEN_ADDRESS
  value: {{ printf "%s:8000" .Values.listenHost | quote }}
- name: STREAMLAG_WEB_TELEMETRY_PATH
  value: {{ .Values.metricsPath | quote }}
{{- if .Values.secrets.redisPassword.name }}
- name: STREAMLAG_REDIS_PASSWORD_FILE
  value: /run/secrets/redis-password/password
{{- end }}
{{- with .Values.secrets.apiToken }}
{{- if .name }}
- name: STREAMLAG_API_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- if .Values.secrets.apiTokens.name }}
- name: STREAMLAG_API_TOKENS_FILE
  value: /run/secrets/api-tokens/tokens
{{- end }}
{{- if .Values.secrets.webConfig.name }}
- name: STREAMLAG_WEB_CONFIG_FILE
  value: /run/secrets/web/web.yml
{{- end }}
{{- if .Values.history.enabled }}
- name: STREAMLAG_HISTORY_PATH
  value: /var/lib/streamlag/history.db
{{- end }}
{{- if gt (int .Values.shards) 1 }}
- name: POD_INDEX
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
- name: STREAMLAG_SHARD
  value: $(POD_INDEX)/{{ int .Values.shards }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Secrets are mounted as folders: a file that is mounted by subPath never changes. */}}
{{- define "streamlag.mounts" -}}
- name: config
  mountPath: /etc/streamlag
  readOnly: true
{{- if .Values.secrets.redisPassword.name }}
- name: redis-password
  mountPath: /run/secrets/redis-password
  readOnly: true
{{- end }}
{{- if .Values.secrets.apiTokens.name }}
- name: api-tokens
  mountPath: /run/secrets/api-tokens
  readOnly: true
{{- end }}
{{- if .Values.secrets.webConfig.name }}
- name: web
  mountPath: /run/secrets/web
  readOnly: true
{{- end }}
{{- range .Values.secrets.mounts }}
- name: {{ printf "secret-%s" .name | trunc 63 | trimSuffix "-" }}
  mountPath: /run/secrets/{{ .name }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "streamlag.volumes" -}}
- name: config
  configMap:
    name: {{ include "streamlag.fullname" . }}
{{- with .Values.secrets.redisPassword }}
{{- if .name }}
- name: redis-password
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - {key: {{ .key | quote }}, path: password}
{{- end }}
{{- end }}
{{- with .Values.secrets.apiTokens }}
{{- if .name }}
- name: api-tokens
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - {key: {{ .key | quote }}, path: tokens}
{{- end }}
{{- end }}
{{- if .Values.secrets.webConfig.name }}
- name: web
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .Values.secrets.webConfig.name }}
          items:
            - {key: {{ .Values.secrets.webConfig.key | quote }}, path: web.yml}
      {{- with .Values.secrets.tls.name }}
      - secret:
          name: {{ . }}
      {{- end }}
{{- end }}
{{- range .Values.secrets.mounts }}
- name: {{ printf "secret-%s" .name | trunc 63 | trimSuffix "-" }}
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
{{- end }}
{{- end -}}
