//! How an event becomes a line: the same keys in both formats, as Prometheus and its exporters have them. First `ts`, `level` and `msg`,
//! then the fields of the event, then those of its spans.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::Format;

/// The name under which tracing hands over an event's message.
const MESSAGE: &str = "message";

/// Formats events and fields of spans.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogFormatter(pub(super) Format);

impl<S, N> FormatEvent<S, N> for LogFormatter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::new(self.0, false);
        if self.0 == Format::Json {
            fields.line.push('{');
        }
        fields.text("ts", &humantime::format_rfc3339_millis(SystemTime::now()).to_string());
        fields.text("level", level(*event.metadata().level()));
        fields.text("msg", &message(event));
        event.record(&mut fields);
        writer.write_str(&fields.line)?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(fields)?;
            }
        }
        writer.write_str(if self.0 == Format::Json { "}\n" } else { "\n" })
    }
}

impl<'writer> FormatFields<'writer> for LogFormatter {
    /// Fields as they stand behind others.
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut formatted = Fields::new(self.0, true);
        fields.record(&mut formatted);
        writer.write_str(&formatted.line)
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// An event's message; empty where it has none.
pub(super) fn message(event: &Event<'_>) -> String {
    let mut message = MessageVisitor(String::new());
    event.record(&mut message);
    message.0
}

struct MessageVisitor(String);

impl Visit for MessageVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            // Writing to a String cannot fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// Keys and values, written one after the other.
struct Fields {
    format: Format,
    line: String,
    /// Whether something stands before the next one.
    follows: bool,
}

impl Fields {
    fn new(format: Format, follows: bool) -> Self {
        Self { format, line: String::new(), follows }
    }

    fn key(&mut self, key: &str) {
        if std::mem::replace(&mut self.follows, true) {
            self.line.push(if self.format == Format::Json { ',' } else { ' ' });
        }
        match self.format {
            // Names of fields are Rust's, or strings of a library: a character that would end them goes.
            Format::Logfmt => self.line.extend(key.chars().filter(|character| !needs_quotes(*character))),
            Format::Json => self.json_string(key),
        }
        self.line.push(if self.format == Format::Json { ':' } else { '=' });
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        match self.format {
            Format::Logfmt if value.chars().any(needs_quotes) => {
                self.line.push('"');
                for character in value.chars() {
                    // A quote of the other kind ends nothing.
                    if character == '\'' {
                        self.line.push(character)
                    } else {
                        self.line.extend(character.escape_debug())
                    }
                }
                self.line.push('"');
            }
            Format::Logfmt => self.line.push_str(value),
            Format::Json => self.json_string(value),
        }
    }

    /// A number or a truth value: as it is.
    fn plain(&mut self, field: &Field, value: &dyn fmt::Display) {
        self.key(field.name());
        let _ = write!(self.line, "{value}");
    }

    fn json_string(&mut self, text: &str) {
        // A string can always be written as JSON.
        self.line.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

fn needs_quotes(character: char) -> bool {
    character <= ' ' || matches!(character, '=' | '"')
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no others.
        if value.is_finite() {
            self.plain(field, &format_args!("{value:?}"))
        } else {
            self.text(field.name(), &value.to_string())
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE {
            self.text(field.name(), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != MESSAGE {
            self.text(field.name(), &format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of one event in a span, without its time.
    fn line(format: Format) -> String {
        let written = Written::default();
        let to = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || to.clone());
        let layer = layer.fmt_fields(LogFormatter(format)).event_format(LogFormatter(format));
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            let span = tracing::error_span!("poller", redis_target = "a b");
            let _entered = span.enter();
            let none: Option<u64> = None;
            tracing::warn!(none, many = 3, ratio = 0.5, endless = f64::INFINITY, on = true, name = %"x=\"y's", empty = "", "it {}", "broke");
        });
        let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let at = line.find("20").unwrap();
        format!("{}TIME{}", &line[..at], &line[at + "2026-01-02T03:04:05.678Z".len()..])
    }

    #[test]
    fn both_formats_have_the_same_keys() {
        assert_eq!(
            line(Format::Logfmt),
            "ts=TIME level=warn msg=\"it broke\" many=3 ratio=0.5 endless=inf on=true name=\"x=\\\"y's\" empty= redis_target=\"a b\"\n"
        );
        assert_eq!(
            line(Format::Json),
            "{\"ts\":\"TIME\",\"level\":\"warn\",\"msg\":\"it broke\",\"many\":3,\"ratio\":0.5,\"endless\":\"inf\",\"on\":true,\
             \"name\":\"x=\\\"y's\",\"empty\":\"\",\"redis_target\":\"a b\"}\n"
        );
    }
}
