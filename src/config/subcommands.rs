//! The subcommands: what they take, and those that only print.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::analysis::history::{MINUTE, query};
use crate::config::effective::ACTIONS;
use crate::config::settings::{Flag, SETTINGS, Setting};
use crate::config::values::ConfigError;
use crate::config::{Config, MAX_DURATION, values};
use crate::http::tokens;
use crate::sys::terminal::Color;

/// Settings by heading that mean something to one sample.
const OF_A_SAMPLE: [&str; 2] = ["Redis", "What to sample"];

/// Names that an error lists, at most.
const MAX_LISTED: usize = 20;

/// Shells whose completions can be printed.
const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

/// `streamlag lag`.
#[derive(Debug)]
pub struct LagRequest {
    /// What to sample.
    pub config: Config,
    /// The form of the answer.
    pub output: Output,
    /// When it is in colour.
    pub color: Color,
    /// How long lags may be counted and streams searched for.
    pub wait: Duration,
}

/// `streamlag history`.
#[derive(Debug)]
pub struct HistoryRequest {
    /// The file.
    pub path: PathBuf,
    /// What to print of it.
    pub action: HistoryAction,
}

/// What `streamlag history` prints.
#[derive(Debug)]
pub enum HistoryAction {
    /// What is in the file.
    Info(Output),
    /// Points, as CSV.
    Export {
        /// Seconds since the Unix epoch of the first.
        from: i64,
        /// Of the end, not included.
        to: i64,
        /// Seconds of a bucket.
        step: i64,
        /// This stream only.
        stream: Option<String>,
        /// This group only.
        group: Option<String>,
    },
}

/// The form in which subcommands print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// JSON.
    Json,
    /// CSV; `lag` and `history export` only.
    Csv,
}

/// Adds all subcommands.
pub(super) fn add_to(command: Command, argument: impl Fn(&'static Setting) -> Vec<Arg>) -> Command {
    let settings = || SETTINGS.iter().filter(|setting| setting.flag != Flag::None && !ACTIONS.contains(&setting.key));
    let of_a_sample = |setting: &Setting| OF_A_SAMPLE.contains(&setting.heading) || setting.key == "config.file";
    let hidden = |setting| argument(setting).into_iter().map(move |arg| arg.hide(!of_a_sample(setting)));
    let is_of_history = |setting: &&Setting| ["history.path", "config.file"].contains(&setting.key);
    let of_history = || settings().filter(is_of_history).flat_map(&argument);
    command
        .subcommand(
            Command::new("lag")
                .about("Sample once and print the lag of each stream and group; exit 0 healthy, 1 degraded, 2 unhealthy or unknown")
                .after_help(LAG_HELP.join("\n\n"))
                .arg(output(&["table", "json", "csv"]))
                .arg(
                    Arg::new("target")
                        .long("target")
                        .value_name("NAME")
                        .help("Only this target of the configuration file [default: all]"),
                )
                .arg(
                    Arg::new("wait")
                        .long("wait")
                        .value_name("DURATION")
                        .default_value("10s")
                        .help("Time that counting entries and searching for streams may take; 0s samples once"),
                )
                .arg(
                    Arg::new("color")
                        .long("color")
                        .value_name("WHEN")
                        .default_value("auto")
                        .value_parser(PossibleValuesParser::new(["auto", "always", "never"]))
                        .help("Colours: auto is on a terminal, unless NO_COLOR is set"),
                )
                .args(settings().flat_map(hidden)),
        )
        .subcommand(
            Command::new("config")
                .about("Print every setting, its value and where that comes from; secrets are not shown")
                .arg(output(&["table", "json"]))
                .args(settings().flat_map(&argument)),
        )
        .subcommand(
            Command::new("history")
                .about("Print what is in the history file")
                .subcommand_required(true)
                .disable_help_subcommand(true)
                .subcommand(
                    Command::new("export")
                        .about("Print points as CSV")
                        .arg(output(&["csv"]).default_value("csv"))
                        .arg(when("from", "-400d", "Time of the first point: a duration before now such as -1h, a time, or Unix seconds"))
                        .arg(when("to", "now", "Time of the last point"))
                        .arg(when("step", "60s", "Width of a point: 60s or more"))
                        .arg(Arg::new("stream").long("stream").value_name("NAME").help("Only this stream"))
                        .arg(Arg::new("group").long("group").value_name("NAME").help("Only this group"))
                        .args(of_history()),
                )
                .subcommand(
                    Command::new("info")
                        .about("Print its size, its resolutions and their times")
                        .arg(output(&["table", "json"]))
                        .args(of_history()),
                ),
        )
        .subcommand(
            Command::new("token")
                .about("Make an API token: print its secret, once, and the line that stores it")
                .arg(Arg::new("name").value_name("NAME").required(true).help("Who or what uses it; shown in logs"))
                .arg(
                    Arg::new("expires")
                        .long("expires")
                        .value_name("WHEN")
                        .help("When it ends: 90d from now, 2027-01-31 or 2027-01-31T12:00:00Z; never where not given"),
                )
                .arg(
                    Arg::new("rate")
                        .long("rate")
                        .value_name("N/s")
                        .help("Requests per second, in place of --api.rate-limit: 20/s, and twice as many at once"),
                )
                .arg(
                    Arg::new("scope")
                        .long("scope")
                        .value_name("SCOPE")
                        .value_parser(PossibleValuesParser::new([tokens::REMEDIATE]))
                        .help("What it may do beside reading the API: decide on remediation plans"),
                ),
        )
        .subcommand(
            Command::new("audit")
                .about("The record of remediation")
                .subcommand_required(true)
                .disable_help_subcommand(true)
                .subcommand(
                    Command::new("verify")
                        .about("Check that no line of an audit file was changed, added or taken out")
                        .arg(
                            Arg::new("file")
                                .value_name("FILE")
                                .required(true)
                                .value_parser(clap::value_parser!(PathBuf))
                                .help("The file of remediation.audit_file"),
                        ),
                ),
        )
        .subcommand(
            Command::new("notify")
                .about("Notifications of incidents")
                .subcommand_required(true)
                .disable_help_subcommand(true)
                .subcommand(
                    Command::new("test")
                        .about("Send a test to every receiver of the configuration's notify section, and print what became of it")
                        .args(settings().flat_map(&argument)),
                ),
        )
        .subcommand(
            Command::new("completions").about("Print completions for a shell").arg(
                Arg::new("shell")
                    .value_name("SHELL")
                    .required(true)
                    .value_parser(PossibleValuesParser::new(SHELLS.map(|(name, _)| name)))
                    .help("The shell"),
            ),
        )
        .subcommand(
            Command::new("man").about("Print the manual page, or that of a subcommand").arg(
                Arg::new("command").value_name("COMMAND").num_args(0..=2).help("A subcommand, such as lag or history export"),
            ),
        )
}

const LAG_HELP: [&str; 3] = [
    "It takes every flag, environment variable and file of streamlag; those that are not listed above have no effect here.",
    "A lag is exact, or bounded and shown as 1500 (0-3000), with the reason. Entries are counted within --lag.count-budget, as \
     streamlag itself does, for up to --wait.",
    "Exit codes: 0 all healthy; 1 one is degraded, or not everything is watched; 2 one is unhealthy or unknown, or Redis or the \
     configuration cannot be read.",
];

fn when(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    let value = if name == "step" { "DURATION" } else { "TIME" };
    Arg::new(name).long(name).value_name(value).default_value(default).allow_hyphen_values(true).help(help)
}

fn output(forms: &'static [&'static str]) -> Arg {
    Arg::new("output")
        .long("output")
        .short('o')
        .value_name("FORMAT")
        .default_value("table")
        .value_parser(PossibleValuesParser::new(forms))
        .help("The form of the output")
}

fn text<'a>(matches: &'a ArgMatches, key: &str) -> Option<&'a str> {
    matches.get_one::<String>(key).map(String::as_str)
}

impl Output {
    pub(super) fn of(matches: &ArgMatches) -> Self {
        match text(matches, "output") {
            Some("json") => Self::Json,
            Some("csv") => Self::Csv,
            _ => Self::Table,
        }
    }
}

/// What `streamlag lag` is to do with this configuration.
pub(super) fn lag(matches: &ArgMatches, mut config: Config) -> Result<LagRequest, ConfigError> {
    if let Some(wanted) = text(matches, "target") {
        let names: Vec<String> = config.targets.iter().map(|target| target.name.to_string()).collect();
        config.targets.retain(|target| target.name.as_str() == wanted);
        if config.targets.is_empty() {
            let more = if names.len() > MAX_LISTED { ", …" } else { "" };
            let listed = names[..names.len().min(MAX_LISTED)].join(", ");
            return Err(ConfigError::invalid(
                wanted,
                "--target",
                &format!("expected a target of the file: {listed}{more}"),
            ));
        }
    }
    let wait = text(matches, "wait").unwrap_or_default();
    let wait = values::duration(wait, Duration::ZERO, MAX_DURATION, "500ms, 5s or 1m")
        .map_err(|why| ConfigError::invalid(wait, "--wait", &why.to_string()))?;
    let color = match text(matches, "color") {
        Some("always") => Color::Always,
        Some("never") => Color::Never,
        _ => Color::Auto,
    };
    Ok(LagRequest { config, output: Output::of(matches), color, wait })
}

/// What `streamlag history` is to do with this file.
pub(super) fn history(action: &str, matches: &ArgMatches, path: PathBuf) -> Result<HistoryRequest, ConfigError> {
    if action != "export" {
        return Ok(HistoryRequest { path, action: HistoryAction::Info(Output::of(matches)) });
    }
    let [from, to, step] = ["from", "to", "step"].map(|key| text(matches, key).unwrap_or_default());
    let now = query::unix_seconds(SystemTime::now());
    let invalid = |error: query::InvalidQuery| ConfigError::new(error.to_string());
    let range = query::Range::unbounded(from, to, step, MINUTE, now).map_err(invalid)?;
    let of = |key| text(matches, key).map(str::to_owned);
    let action = HistoryAction::Export {
        from: range.from,
        to: range.to,
        step: range.step,
        stream: of("stream"),
        group: of("group"),
    };
    Ok(HistoryRequest { path, action })
}

/// The file that `streamlag audit verify` is to check.
pub(super) fn audit(matches: &ArgMatches) -> PathBuf {
    let verify = matches.subcommand_matches("verify");
    verify.and_then(|matches| matches.get_one::<PathBuf>("file")).cloned().unwrap_or_default()
}

/// Makes a token and says what to do with it.
pub(super) fn token(matches: &ArgMatches) -> Result<String, ConfigError> {
    let expires = text(matches, "expires").map(|when| expiry(when, SystemTime::now())).transpose()?;
    let name = text(matches, "name").unwrap_or_default();
    let rate = text(matches, "rate");
    let rate =
        rate.map(|rate| tokens::parse_rate(rate).map_err(|why| ConfigError::invalid(rate, "--rate", &why.to_string())));
    let may_remediate = text(matches, "scope") == Some(tokens::REMEDIATE);
    let options = tokens::Options { expires, rate: rate.transpose()?, may_remediate };
    let made = tokens::make(name, options).map_err(|why| ConfigError::invalid(name, "NAME", &why.to_string()))?;
    Ok(format!(
        "The secret of {name:?}, shown this once and stored nowhere:\n\n  {}\n\nThe line that goes into the file of \
         --api.tokens-file, after which SIGHUP makes streamlag read it:\n\n  {}\n",
        made.secret, made.line
    ))
}

fn expiry(when: &str, now: SystemTime) -> Result<SystemTime, ConfigError> {
    let after = humantime::parse_duration(when).ok().and_then(|after| now.checked_add(after));
    let at = || tokens::parse_time(when);
    after.or_else(at).filter(|at| *at > now).ok_or_else(|| {
        let takes = "expected a duration or a future time, such as 90d, 2027-01-31 or 2027-01-31T12:00:00Z";
        ConfigError::invalid(when, "--expires", takes)
    })
}

/// The completions of a shell.
pub(super) fn completions(matches: &ArgMatches, mut command: Command) -> String {
    let wanted = text(matches, "shell").unwrap_or_default();
    let mut script = Vec::new();
    if let Some((_, shell)) = SHELLS.iter().find(|(name, _)| *name == wanted) {
        clap_complete::generate(*shell, &mut command, "streamlag", &mut script);
    }
    let script = String::from_utf8_lossy(&script).into_owned();
    if wanted == "fish" { with_dots_in_fish(&script, &command) } else { script }
}

/// The fish script, where the subcommand is found without `argparse`: that refuses options with a dot in their names, and nothing
/// would be completed. A subcommand is always the first word.
fn with_dots_in_fish(script: &str, command: &Command) -> String {
    const NEXT: &str = "function __fish_streamlag_using_subcommand";
    let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let rest = script.split_once(NEXT).map_or(script, |(_, rest)| rest);
    // Nor does it know the values of what is no option.
    let mut values = String::new();
    for subcommand in command.get_subcommands() {
        for argument in subcommand.get_positionals() {
            let possible: Vec<String> =
                argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            if !possible.is_empty() {
                let (name, possible) = (subcommand.get_name(), possible.join(" "));
                values.push_str(&format!(
                    "complete -c streamlag -n \"__fish_streamlag_using_subcommand {name}\" -f -a \"{possible}\"\n"
                ));
            }
        }
    }
    format!(
        "function __fish_streamlag_needs_command
    set -l words (commandline -opc)
    contains -- \"$words[2]\" {}
    or return 0
    # Also print the command, so this can be used to figure out what it is.
    echo $words[2]
    return 1
end

{NEXT}{rest}{values}",
        names.join(" ")
    )
}

/// The manual page of the program, or of a subcommand.
pub(super) fn man(matches: &ArgMatches, mut command: Command) -> Result<String, ConfigError> {
    command.build();
    let mut command = &command;
    for name in matches.get_many::<String>("command").unwrap_or_default() {
        command = command.find_subcommand(name).ok_or_else(|| {
            let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            let expected = match names.as_slice() {
                [] => format!("{} has no subcommands", command.get_name()),
                names => format!("expected one of {}", names.join(", ")),
            };
            ConfigError::invalid(name, "COMMAND", &expected)
        })?;
    }
    let mut page = Vec::new();
    // Writing to memory does not fail.
    let rendered = render_man(command, &mut page);
    debug_assert!(rendered.is_ok(), "{rendered:?}");
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// A manual page with a synopsis of one line. The crate's own repeats every flag.
fn render_man(command: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(command.clone()).source(concat!("streamlag ", env!("CARGO_PKG_VERSION")));
    let positionals = command.get_positionals().filter_map(|argument| argument.get_value_names()?.first());
    let positionals: String = positionals.map(|name| format!(" \\fI{name}\\fR")).collect();
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let subcommands = match command.has_subcommands() {
        true => format!("\n.br\n\\fB{name}\\fR \\fICOMMAND\\fR ..."),
        false => String::new(),
    };
    man.render_title(page)?;
    man.render_name_section(page)?;
    writeln!(page, ".SH SYNOPSIS\n\\fB{name}\\fR [\\fIOPTIONS\\fR]{positionals}{subcommands}")?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    if command.get_after_help().is_some() {
        man.render_extra_section(page)?;
    }
    Ok(())
}
