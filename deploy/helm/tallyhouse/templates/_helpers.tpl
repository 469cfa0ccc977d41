{{- define "tallyhouse.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "tallyhouse.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "tallyhouse.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tallyhouse.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tallyhouse.selector" -}}
app.kubernetes.io/name: {{ include "tallyhouse.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tallyhouse.labels" -}}
{{ include "tallyhouse.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "tallyhouse.image" -}}
{{- $image := printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- if .Values.image.digest -}}
{{- $image = printf "%s@%s" $image .Values.image.digest -}}
{{- end -}}
{{- $image -}}
{{- end -}}

{{/* An environment variable from a key of a secret; nothing where no secret is named. */}}
{{- define "tallyhouse.secretEnv" -}}
{{- if .secret.name }}
- name: {{ .variable }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret.name }}
      key: {{ .secret.key }}
{{- end -}}
{{- end -}}

{{/* Port of a URL, or that of its scheme. */}}
{{- define "tallyhouse.urlPort" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "443" "80" (eq $url.scheme "https")) $port -}}
{{- end -}}

{{/* The name that a pod has by the headless Service, wherever its addresses are. POD_NAME is a variable of the pod. */}}
{{- define "tallyhouse.podHost" -}}
{{- printf "%s.%s-pods.%s.svc" .pod (include "tallyhouse.fullname" .root) .root.Release.Namespace -}}
{{- end -}}

{{/* Every form of the names by which the port for SQL is called, each with a comma behind it. */}}
{{- define "tallyhouse.sqlHosts" -}}
{{- $name := include "tallyhouse.fullname" . -}}
{{- $service := ternary $name "$(POD_NAME)" (eq .Values.routing "single") -}}
{{- range $name := list $service (printf "%s-pods" $name) (printf "$(POD_NAME).%s-pods" $name) -}}
{{- $qualified := printf "%s.%s" $name $.Release.Namespace -}}
{{- printf "%s,%s,%s.svc,%s.svc.%s," $name $qualified $qualified $qualified (default "cluster.local" $.Values.clusterDomain) -}}
{{- end -}}
{{- end -}}

{{/* A probe of a path. A service with a list of hosts answers to these only. */}}
{{- define "tallyhouse.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ ternary "HTTPS" "HTTP" (ne .root.Values.tlsSecret "") }}
  {{- with .root.Values.allowedHosts }}
  httpHeaders:
    - name: Host
      value: {{ first . | quote }}
  {{- end }}
{{- end -}}

{{/* Bytes of a quantity, such as 16Gi. */}}
{{- define "tallyhouse.bytes" -}}
{{- $factors := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Za-z]*$" . -}}
{{- mulf (trimSuffix $unit . | float64) (get $factors $unit) | int64 -}}
{{- end -}}

{{/* What a schema cannot say. */}}
{{- define "tallyhouse.check" -}}
{{- $auth := .Values.authentication -}}
{{- if not (or $auth.hs256Secret.name $auth.jwksUrl) -}}
{{- fail "set authentication.hs256Secret.name or authentication.jwksUrl: the service does not listen to others without authentication" -}}
{{- end -}}
{{- if and $auth.hs256Secret.name $auth.jwksUrl -}}
{{- fail "set one of authentication.hs256Secret.name and authentication.jwksUrl, not both" -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- if ne .Values.routing "byOrganization" -}}
{{- fail "replicas is more than 1: each replica deduplicates what it sees, so the events of an organization must always reach the same one. Arrange that, and set routing to byOrganization" -}}
{{- end -}}
{{- if not .Values.cursorSecret.name -}}
{{- fail "replicas is more than 1: set cursorSecret.name, so that each replica accepts the cursors of the others" -}}
{{- end -}}
{{- if and .Values.sql.enabled (not .Values.sql.analystSecret.name) -}}
{{- fail "replicas is more than 1: set sql.analystSecret.name, so that all replicas have the same passwords of analysts" -}}
{{- end -}}
{{- if and .Values.ticketing.enabled (not .Values.ticketing.databaseUrlSecret.name) -}}
{{- fail "replicas is more than 1: set ticketing.databaseUrlSecret.name, so that all replicas have the same catalogue" -}}
{{- end -}}
{{- end -}}
{{- if le (include "tallyhouse.bytes" .Values.log.size | int64) (int64 .Values.log.bytesMax) -}}
{{- fail "log.size must exceed log.bytesMax: the id ledger, idempotency keys and the free space that is left lie beside the log" -}}
{{- end -}}
{{- if and .Values.pipeline.enabled (not .Values.pipeline.redisUrlSecret.name) -}}
{{- fail "pipeline.enabled: set pipeline.redisUrlSecret.name" -}}
{{- end -}}
{{- if ne (empty .Values.ticketing.webhookUrlSecret.name) (empty .Values.ticketing.webhookSecret.name) -}}
{{- fail "set both of ticketing.webhookUrlSecret.name and ticketing.webhookSecret.name, or none: webhooks are sent to a URL and signed with a secret" -}}
{{- end -}}
{{- $volumes := list -}}
{{- range .Values.extraVolumes -}}
{{- if has .name (list "log" "tls" "key-vault") -}}
{{- fail (printf "extraVolumes: the chart has a volume %s of its own" .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- fail (printf "extraVolumeMounts: extraVolumes has no %s" .name) -}}
{{- end -}}
{{- $path := printf "%s/" (clean .mountPath | trimSuffix "/") -}}
{{- if or (hasPrefix $path "/var/lib/tallyhouse/") (hasPrefix "/var/lib/tallyhouse/" $path) -}}
{{- fail (printf "extraVolumeMounts: %s would hide the log, which is in /var/lib/tallyhouse" .mountPath) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.metricsOpen) (not .Values.serviceMonitor.tokenSecret.name) -}}
{{- fail "serviceMonitor.enabled: set serviceMonitor.tokenSecret.name, a token with the scope admin, or metricsOpen" -}}
{{- end -}}
{{- end -}}
