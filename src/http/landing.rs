//! The page at `/`.

/// A page with the version and the links.
#[must_use]
pub fn page(telemetry_path: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let telemetry_path = escape(telemetry_path);
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>streamlag {version}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; color: #1c1e21; background: #fff }}
h1 {{ font-size: 1.5rem; margin: 0 }}
p.version {{ margin: 0 0 2rem; color: #5a6068 }}
table {{ border-collapse: collapse; width: 100% }}
td {{ padding: .4rem 1rem .4rem 0; border-bottom: 1px solid #e3e5e8; vertical-align: top }}
code {{ font: .9em ui-monospace, monospace }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e6e8eb; background: #15171a }} a {{ color: #8ab4f8 }} td {{ border-color: #33373d }} p.version {{ color: #9aa1aa }}
}}
</style>
</head>
<body>
<h1>streamlag</h1>
<p class="version">{version}: consumer-group lag on Redis Streams, for Prometheus</p>
<table>
<tr><td><a href="ui/"><code>/ui/</code></a></td><td>the live page (asks for a token)</td></tr>
<tr><td><a href="{telemetry_path}"><code>{telemetry_path}</code></a></td><td>metrics</td></tr>
<tr><td><code>/probe?target=NAME</code></td><td>metrics of one target</td></tr>
<tr><td><a href="/api/v1/sd"><code>/api/v1/sd</code></a></td><td>the targets, for Prometheus's HTTP service discovery</td></tr>
<tr><td><a href="/-/healthy"><code>/-/healthy</code></a></td><td>the process is alive</td></tr>
<tr><td><a href="/-/ready"><code>/-/ready</code></a></td><td>a first poll has ended, and it is not shutting down</td></tr>
<tr><td><code>/api/v1/targets</code></td><td>the targets (bearer token)</td></tr>
<tr><td><code>/api/v1/events/consumer-lag</code></td><td>lag per stream (bearer token)</td></tr>
<tr><td><code>/api/v1/events/streams</code></td><td>streams (bearer token)</td></tr>
<tr><td><code>/api/v1/events/health</code></td><td>health of the whole (bearer token)</td></tr>
<tr><td><code>/api/v1/events/groups</code></td><td>consumer groups (bearer token)</td></tr>
<tr><td><code>/api/v1/events/consumers</code></td><td>consumers (bearer token)</td></tr>
<tr><td><code>/api/v1/events/logical-streams</code></td><td>logical streams (bearer token)</td></tr>
<tr><td><code>/api/v1/events/live</code></td><td>groups and incidents as they change: Server-Sent Events or WebSocket (bearer token)</td></tr>
<tr><td><code>/api/v1/events/history</code></td><td>how the lag of a group was (bearer token)</td></tr>
<tr><td><code>/api/v1/events/trends</code></td><td>where lags are going (bearer token)</td></tr>
<tr><td><code>/api/v1/events/forecast</code></td><td>how the lag of a group may go on (bearer token)</td></tr>
<tr><td><code>/api/v1/incidents</code></td><td>what is wrong, by the rules of the alerts (bearer token)</td></tr>
<tr><td><code>/api/v1/remediation</code></td><td>what could be done about sick groups (bearer token)</td></tr>
<tr><td><code>/api/v1/scale</code>, <code>/api/v1/scale/NAME</code></td><td>numbers for autoscalers (bearer token)</td></tr>
</table>
</body>
</html>
"#
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
