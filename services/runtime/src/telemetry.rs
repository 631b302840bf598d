//! What a process says of itself: logs to standard output, spans over OTLP.
//!
//! Both leave through bounded queues and threads of their own. A reader that stalls or a collector that is gone
//! costs records, which are counted, and never a request.

mod export;
mod log_writer;

use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::access::{self, AccessRecord};
use crate::clock::Clock;
pub(crate) use log_writer::LogWriter;

/// One request in a hundred: enough to see, too little to cost.
const DEFAULT_SAMPLING_PERCENT: f64 = 1.0;

/// How long a process that ends may take to deliver its last spans and lines.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Human,
}

/// The same flags for every service.
#[derive(Clone, Debug, clap::Args)]
pub struct TelemetryArgs {
    #[command(flatten)]
    pub process: ProcessTelemetryArgs,
    /// Whether each request is logged
    #[arg(long, env = "ACCESS_LOG", default_value_t = true, action = clap::ArgAction::Set)]
    pub access_log: bool,
}

/// The same flags for every process, whether it serves requests or not.
#[derive(Clone, Debug, clap::Args)]
pub struct ProcessTelemetryArgs {
    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// Least level that is logged, or tracing directives such as `info,hyper=debug`
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = log_filter)]
    pub log_level: String,
    /// Base URL of an OTLP collector (HTTP, protobuf), such as `http://otel-collector:4318`; absent = no export
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = otlp_endpoint)]
    pub otlp_endpoint: Option<String>,
    /// How many of 100 new traces are sampled
    #[arg(long, env = "TRACE_SAMPLING_PERCENT", default_value_t = DEFAULT_SAMPLING_PERCENT, value_parser = percent)]
    pub trace_sampling_percent: f64,
    /// Attributes of this process, `key=value,key=value`
    #[arg(long, env = "OTEL_RESOURCE_ATTRIBUTES", default_value = "", value_parser = resource_attributes)]
    pub resource_attributes: ResourceAttributes,
}

/// Attributes that say which process a span comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceAttributes(Vec<(String, String)>);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("logging is already set up in this process")]
    AlreadyInitialised,
    #[error("spans cannot be exported to {endpoint}")]
    NoExporter {
        endpoint: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Keeps telemetry going; dropping it delivers what is left, within two seconds.
#[derive(Debug)]
#[must_use = "dropping it ends logging"]
pub struct Telemetry {
    logs: log_writer::Flush,
    spans: Option<export::Flush>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(spans) = &self.spans {
            spans.flush(FLUSH_WITHIN);
        }
        self.logs.flush(FLUSH_WITHIN);
    }
}

/// Sets up logging and, with an endpoint, the export of spans, for the whole process.
///
/// # Errors
/// [`TelemetryError`] when it was done before or the exporter cannot be made.
pub fn init(args: &TelemetryArgs, service: &str) -> Result<Telemetry, TelemetryError> {
    start(&args.process, args.access_log, service)
}

/// [`init`] for a process that serves no requests of clients.
///
/// # Errors
/// As of [`init`].
pub fn init_process(args: &ProcessTelemetryArgs, service: &str) -> Result<Telemetry, TelemetryError> {
    start(args, false, service)
}

fn start(args: &ProcessTelemetryArgs, access_log: bool, service: &str) -> Result<Telemetry, TelemetryError> {
    let (writer, logs) = LogWriter::start(Box::new(std::io::stdout()));
    let mut filter = EnvFilter::new(&args.log_level);
    if !access_log && let Ok(directive) = format!("{}=off", access::TARGET).parse() {
        filter = filter.add_directive(directive);
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(writer.clone());
    let lines = match args.log_format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        LogFormat::Human => lines.with_ansi(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init()
        .map_err(|_| TelemetryError::AlreadyInitialised)?;
    if args.log_format == LogFormat::Json && AccessRecord::is_wanted() {
        access::write_directly(writer, Clock::system());
    }
    let spans = match &args.otlp_endpoint {
        Some(endpoint) => Some(export::start(
            endpoint,
            service,
            &args.resource_attributes.0,
            args.trace_sampling_percent,
            Clock::system(),
        )?),
        None => None,
    };
    Ok(Telemetry { logs, spans })
}

fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(
            "write a level (error, warn, info, debug, trace) or directives such as info,hyper=debug".into(),
        ),
    }
}

fn otlp_endpoint(text: &str) -> Result<String, String> {
    let uri: http::Uri = text
        .parse()
        .map_err(|_| "must be a URL such as http://otel-collector:4318".to_owned())?;
    match uri.scheme_str() {
        Some("http") if uri.authority().is_some() => Ok(text.trim_end_matches('/').to_owned()),
        Some("https") => Err("must begin with http://: OTLP over TLS is not supported yet".to_owned()),
        _ => Err("must be a URL such as http://otel-collector:4318".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("must be a number from 0 to 100".to_owned()),
    }
}

fn resource_attributes(text: &str) -> Result<ResourceAttributes, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let read = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("{pair:?} must be key=value")),
    };
    pairs.map(read).collect::<Result<_, _>>().map(ResourceAttributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        telemetry: TelemetryArgs,
    }

    fn parse(flags: &[&str]) -> Result<TelemetryArgs, clap::Error> {
        Flags::try_parse_from([&["x"], flags].concat()).map(|flags| flags.telemetry)
    }

    #[test]
    fn flags_are_read_with_their_defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!(
            (
                args.process.log_format,
                args.access_log,
                args.process.otlp_endpoint
            ),
            (LogFormat::Json, true, None)
        );
        let args = parse(&["--access-log", "false", "--resource-attributes", "a=1, b=2"]).unwrap();
        assert!(!args.access_log);
        assert_eq!(
            args.process.resource_attributes.0,
            [("a".into(), "1".into()), ("b".into(), "2".into())]
        );
    }

    #[test]
    fn bad_flags_are_refused() {
        for flags in [
            ["--trace-sampling-percent", "101"],
            ["--trace-sampling-percent", "NaN"],
            ["--otlp-endpoint", "https://collector"],
            ["--otlp-endpoint", "collector:4318"],
            ["--log-level", "loud=very=much"],
            ["--resource-attributes", "a"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
    }
}
