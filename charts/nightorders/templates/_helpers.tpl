{{- /* The image with its tag (a name may precede it), its digest, or both. */ -}}
{{- define "nightorders.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- .Values.image.repository }}{{ if not (hasPrefix "@" $tag) }}:{{ end }}{{ $tag }}
{{- end }}
