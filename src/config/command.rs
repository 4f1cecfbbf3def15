//! The command line and the environment, by clap, from the table of settings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use crate::actions::notify::NotifyConfig;
use crate::config::effective::{Effective, FILE};
use crate::config::file::{
    ConfigFileError, File, FileValues, Located, NotifySection, RemediationSection, ScalerItem, Section,
};
use crate::config::nearest::nearest;
use crate::config::settings::{self, Flag, SETTINGS, Setting};
use crate::config::subcommands::{self, HistoryRequest, LagRequest, Output};
use crate::config::values::{ConfigError, RawValue, ValueOrigin};
use crate::config::{API_TOKEN_VARIABLE, Config, SettingSources};
use crate::model::{TargetName, names};

/// What the names of the program's own environment variables begin with.
const PREFIX: &str = "STREAMLAG_";

/// Unknown environment variables that are warned of at most.
const MAX_UNKNOWN: usize = 20;

/// What an error repeats of an unknown argument or variable, in bytes: more than the longest that there is.
const MAX_SHOWN: usize = 80;

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run with this configuration.
    Run(Box<Config>),
    /// Say that this configuration is good.
    Check(Box<Config>),
    /// Ask the running program whether it is healthy.
    Healthcheck(Box<Config>),
    /// Sample once and print lags.
    Lag(Box<LagRequest>),
    /// Print what is in a history file.
    History(HistoryRequest),
    /// Tell every receiver that telling works.
    NotifyTest(Box<NotifyConfig>),
    /// Check an audit file.
    AuditVerify(PathBuf),
    /// Print this configuration.
    PrintConfig(String),
    /// Print this: the help, the version, what a subcommand makes.
    Print(String),
}

const ABOUT: &str = "Prometheus exporter for consumer-group lag on Redis Streams";

const AFTER: [&str; 4] = [
    "A flag wins over its environment variable, which wins over --config.file, which wins over the default. An empty \
     environment variable counts as not set.",
    "The API's bearer tokens come from STREAMLAG_API_TOKEN (one, named default) and from --api.tokens-file; without any, \
     every API call is answered 401.",
    "SIGHUP reloads all files, all of them or none.",
    "Exit codes: 0 ended as asked, 1 could not run, 2 bad configuration.",
];

/// Reads the command line, the environment, and the file that they may name.
///
/// # Errors
/// What is wrong with them, in one line.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, ConfigError> {
    let mut command = command();
    let arguments = with_negative_values(arguments);
    let mut matches = match command.try_get_matches_from_mut(&arguments) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Invocation::Print(error.render().to_string()));
        }
        Err(error) => return Err(wrong_arguments(&error, &command, &arguments)),
    };
    let Some((name, mut matches)) = matches.remove_subcommand() else {
        let given = AllSources::new(matches)?;
        let config = Box::new(Config::from_sources(&given)?);
        return Ok(if given.switch("healthcheck") {
            Invocation::Healthcheck(config)
        } else if given.switch("config.check") {
            Invocation::Check(config)
        } else {
            Invocation::Run(config)
        });
    };
    match name.as_str() {
        "lag" => {
            let given = AllSources::new(matches)?;
            let config = Config::from_sources(&WithoutDaemon(&given))?;
            Ok(Invocation::Lag(Box::new(subcommands::lag(&given.matches, config)?)))
        }
        "config" => {
            let given = AllSources::new(matches)?;
            let config = Config::from_sources(&given)?;
            let effective = Effective::new(|setting| given.of(setting), &given, &config);
            Ok(Invocation::PrintConfig(match Output::of(&given.matches) {
                Output::Json => effective.json(),
                Output::Table | Output::Csv => effective.table(),
            }))
        }
        "history" => {
            let (action, matches) = matches.remove_subcommand().unwrap_or_default();
            let given = AllSources::new(matches)?;
            // Its own settings are enough: targets, tokens and certificates are not looked at.
            let path = given.get("history.path").ok_or_else(|| {
                ConfigError::new("--history.path is missing: expected the history file of a streamlag".to_owned())
            })?;
            subcommands::history(&action, &given.matches, path.path()).map(Invocation::History)
        }
        "notify" => {
            // What to do stands before the settings.
            let matches = matches.remove_subcommand().map_or(matches, |(_, matches)| matches);
            let given = AllSources::new(matches)?;
            let config = Config::from_sources(&given)?.notify;
            if config.receivers().next().is_none() {
                return Err(ConfigError::new(
                    "there is nobody to be told: expected notify: in the file of --config.file".to_owned(),
                ));
            }
            Ok(Invocation::NotifyTest(Box::new(config)))
        }
        "audit" => Ok(Invocation::AuditVerify(subcommands::audit(&matches))),
        "completions" => Ok(Invocation::Print(subcommands::completions(&matches, command))),
        "man" => subcommands::man(&matches, command).map(Invocation::Print),
        _ => subcommands::token(&matches).map(Invocation::Print),
    }
}

/// What is wrong with the arguments, in one line.
fn wrong_arguments(error: &clap::Error, command: &Command, arguments: &[OsString]) -> ConfigError {
    // Nothing stands before a subcommand.
    let first = arguments.get(1).and_then(|argument| argument.to_str());
    let subcommand = first.and_then(|name| command.find_subcommand(name));
    let help = match subcommand {
        Some(subcommand) => format!("streamlag {} --help", subcommand.get_name()),
        None => "streamlag --help".to_owned(),
    };
    let of = subcommand.unwrap_or(command);
    unknown_collector(error)
        .or_else(|| invalid_value(error))
        .or_else(|| unknown_argument(error, of, &help))
        .unwrap_or_else(|| ConfigError::new(format!("{}; see {help}", first_paragraph(&error.render().to_string()))))
}

/// The arguments, where `--flag -1` is `--flag=-1`: clap would take the value for a flag, and not say what the flag expects.
fn with_negative_values(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let takes_value = |argument: &OsString| {
        let key = argument.to_str().and_then(|argument| argument.strip_prefix("--"));
        key.and_then(Setting::find).is_some_and(|setting| matches!(setting.flag, Flag::Value | Flag::List))
    };
    let mut joined: Vec<OsString> = Vec::new();
    for argument in arguments {
        let is_negative = matches!(argument.as_encoded_bytes(), [b'-', b'0'..=b'9', ..]);
        match joined.last_mut() {
            Some(flag) if is_negative && takes_value(flag) => {
                flag.push("=");
                flag.push(argument);
            }
            _ => joined.push(argument),
        }
    }
    joined
}

fn command() -> Command {
    let transport = SETTINGS.iter().filter(|setting| setting.flag == Flag::None);
    let transport: String = transport
        .map(|setting| {
            let (env, default) = (setting.env.unwrap_or_default(), setting.default.unwrap_or_default());
            format!("  {env}={default}\n          {}\n", setting.help)
        })
        .collect();
    let command = Command::new("streamlag")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(format!("Event transport (environment only):\n{transport}\n{}", AFTER.join("\n\n")))
        .disable_help_subcommand(true)
        .args(SETTINGS.iter().filter(|setting| setting.flag != Flag::None).flat_map(arguments))
        .args_conflicts_with_subcommands(true);
    subcommands::add_to(command, arguments)
}

/// The flags of a setting.
fn arguments(setting: &'static Setting) -> Vec<Arg> {
    std::iter::once(argument(setting)).chain(opposite(setting)).collect()
}

fn argument(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.key).long(setting.key).help(setting.help).help_heading(setting.heading);
    let arg = match setting.flag {
        Flag::Switch => return arg.action(ArgAction::SetTrue),
        Flag::Toggle(opposite) => {
            let (env, default) = (setting.env.unwrap_or_default(), setting.default.unwrap_or_default());
            let help = format!("{} (--{opposite} for the opposite) [env: {env}=] [default: {default}]", setting.help);
            return arg.help(help).action(ArgAction::SetTrue).overrides_with(opposite);
        }
        Flag::List => arg.action(ArgAction::Append),
        Flag::Value | Flag::None => arg.action(ArgAction::Set),
    };
    // The environment is read by hand below, to tell an empty variable from a set one; clap shows it in the help.
    let arg = match setting.env {
        Some(env) => arg.env(env).hide_env_values(true),
        None => arg,
    };
    let arg = match setting.default {
        Some(default) => arg.default_value(default),
        None => arg,
    };
    let hint = if setting.value_name == FILE { ValueHint::FilePath } else { ValueHint::Unknown };
    arg.value_name(setting.value_name).value_hint(hint).value_parser(clap::value_parser!(OsString))
}

/// The flag that says the opposite of a toggle.
fn opposite(setting: &'static Setting) -> Option<Arg> {
    let Flag::Toggle(name) = setting.flag else { return None };
    Some(Arg::new(name).long(name).hide(true).action(ArgAction::SetTrue).overrides_with(setting.key))
}

/// The error for an unknown flag that turns a collector on or off.
fn unknown_collector(error: &clap::Error) -> Option<ConfigError> {
    let flag = match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(flag) if error.kind() == ErrorKind::UnknownArgument => flag,
        _ => return None,
    };
    let key = flag.strip_prefix("--no-").or_else(|| flag.strip_prefix("--"))?;
    let name = key.strip_prefix(settings::COLLECTORS)?;
    let expected = format!("expected a collector that can be turned on or off: {}", settings::collectors());
    Some(ConfigError::new(format!("invalid collector {name:?} in {flag:?}: {expected}")))
}

/// The error for a value that is not one of the possible ones.
fn invalid_value(error: &clap::Error) -> Option<ConfigError> {
    let (Some(ContextValue::String(value)), Some(ContextValue::String(argument)), Some(ContextValue::Strings(valid))) =
        (error.get(ContextKind::InvalidValue), error.get(ContextKind::InvalidArg), error.get(ContextKind::ValidValue))
    else {
        return None;
    };
    // As `--output <FORMAT>` or `<SHELL>`.
    let name = argument.split(' ').next().unwrap_or_default().trim_matches(['<', '>']);
    let is_possible = error.kind() == ErrorKind::InvalidValue && !valid.is_empty() && !value.is_empty();
    let value = names::text(value.as_bytes(), MAX_SHOWN);
    is_possible.then(|| ConfigError::invalid(&value, name, &format!("expected one of {}", valid.join(", "))))
}

/// The error for an unknown argument: the flag or subcommand that may have been meant, and where help is.
fn unknown_argument(error: &clap::Error, of: &Command, help: &str) -> Option<ConfigError> {
    let context = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => return None,
    };
    let ContextValue::String(argument) = error.get(context)? else { return None };
    // What follows an equals sign, or stands alone, may be a URL with a password.
    let flag = argument.split('=').next().unwrap_or_default();
    let shown = if flag.contains("://") { "(not shown)".into() } else { names::text(flag.as_bytes(), MAX_SHOWN) };
    if !flag.starts_with('-') {
        let subcommands: Vec<&str> = of.get_subcommands().map(Command::get_name).collect();
        let expected = match nearest(flag, subcommands.iter().copied()) {
            Some(near) => format!("did you mean {near}? See {help}"),
            None if subcommands.is_empty() => format!("expected flags only; see {help}"),
            None => format!("expected flags, or one of {}; see {help}", subcommands.join(", ")),
        };
        return Some(ConfigError::new(format!("unexpected argument {shown:?}: {expected}")));
    }
    let near = nearest(flag.trim_start_matches('-'), of.get_arguments().filter_map(Arg::get_long));
    Some(ConfigError::new(match near {
        Some(near) => format!("unknown flag {shown}: did you mean --{near}? See {help}"),
        None => format!("unknown flag {shown}: see {help}"),
    }))
}

/// Variables of the environment that have this program's name in front and are none of its settings, each with the one that may have
/// been meant; `MAX_UNKNOWN` at most.
#[must_use]
pub fn unknown_variables() -> Vec<(String, Option<&'static str>)> {
    let known =
        || SETTINGS.iter().flat_map(|setting| [setting.env, setting.env_alias]).flatten().chain([API_TOKEN_VARIABLE]);
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ours =
        names.filter(|name| name.starts_with(PREFIX) && !is_of_a_service(name) && !known().any(|known| known == name));
    let shown = |name: String| (names::text(name.as_bytes(), MAX_SHOWN), nearest(&name, known()));
    ours.map(shown).take(MAX_UNKNOWN).collect()
}

/// Whether Kubernetes sets it in each pod of a namespace that has a service called streamlag.
fn is_of_a_service(name: &str) -> bool {
    name == "STREAMLAG_PORT" || name.starts_with("STREAMLAG_PORT_") || name.starts_with("STREAMLAG_SERVICE_")
}

/// clap's message without its usage lines, in one line.
fn first_paragraph(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or(message);
    let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

/// The sources by rank: flag, environment, file, default.
struct AllSources {
    matches: ArgMatches,
    file: File,
}

impl SettingSources for AllSources {
    fn get(&self, key: &str) -> Option<RawValue> {
        let setting = Setting::find(key)?;
        if let Some(values) = self.flag(setting) {
            return Some(RawValue::new(setting, ValueOrigin::Flag, values));
        }
        // The alias has the program's own name: it is meant where both are set.
        for variable in [setting.env_alias, setting.env].into_iter().flatten() {
            if let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
                return Some(RawValue::new(setting, ValueOrigin::Environment(variable), vec![value]));
            }
        }
        if let Some(entry) = self.file.get(key) {
            return Some(entry.given(setting, ValueOrigin::File));
        }
        Some(RawValue::new(setting, ValueOrigin::Default, vec![setting.default?.into()]))
    }

    fn switch(&self, key: &str) -> bool {
        let in_file = || self.file.get(key).is_some_and(FileValues::switch);
        self.has_flag(key) || in_file()
    }

    fn api_token(&self) -> Option<String> {
        let token = std::env::var_os(API_TOKEN_VARIABLE)?;
        // What is not UTF-8 cannot be sent either; what is sent in its place is refused as such.
        Some(token.to_string_lossy().into_owned()).filter(|token| !token.is_empty())
    }

    fn targets(&self) -> &[(TargetName, Section)] {
        self.file.targets()
    }

    fn scalers(&self) -> &[Located<ScalerItem>] {
        self.file.scalers()
    }

    fn notify(&self) -> Option<&Located<NotifySection>> {
        self.file.notify()
    }

    fn remediation(&self) -> Option<&Located<RemediationSection>> {
        self.file.remediation()
    }
}

impl AllSources {
    /// Reads the file that is named.
    fn new(matches: ArgMatches) -> Result<Self, ConfigError> {
        let mut given = Self { matches, file: File::default() };
        if let Some(path) = given.get("config.file") {
            let path_text = path.text()?;
            given.file = File::read(Path::new(&path_text)).map_err(|error| match error {
                ConfigFileError::Scaler(problem) => problem,
                error => path.problem(error),
            })?;
        }
        Ok(given)
    }

    /// What was given of a setting, or its default; of a switch as well.
    fn of(&self, setting: &'static Setting) -> Option<RawValue> {
        if setting.flag != Flag::Switch {
            return self.get(setting.key);
        }
        let value = |origin, is_on: bool| Some(RawValue::new(setting, origin, vec![is_on.to_string().into()]));
        match self.file.get(setting.key) {
            _ if self.has_flag(setting.key) => value(ValueOrigin::Flag, true),
            Some(entry) => Some(entry.given(setting, ValueOrigin::File)),
            None => value(ValueOrigin::Default, false),
        }
    }

    /// Whether a switch is on the command line; not so where that does not take it.
    fn has_flag(&self, key: &str) -> bool {
        self.matches.try_get_one::<bool>(key).ok().flatten().copied().unwrap_or_default()
    }

    fn flag(&self, setting: &Setting) -> Option<Vec<OsString>> {
        let is_given = |id: &str| self.matches.value_source(id) == Some(ValueSource::CommandLine);
        if let Flag::Toggle(opposite) = setting.flag {
            let is_opposite = is_given(opposite);
            let given = is_opposite || is_given(setting.key);
            return given.then(|| vec![if is_opposite { "false" } else { "true" }.into()]);
        }
        let given = setting.flag != Flag::None && is_given(setting.key);
        let values = || self.matches.get_many::<OsString>(setting.key).unwrap_or_default().cloned().collect();
        given.then(values)
    }
}

/// What a sample needs: the settings without the files and secrets of the HTTP server, of history and of `notify`, which the user of a
/// shell may be unable to read.
struct WithoutDaemon<'a>(&'a AllSources);

/// Settings that name them.
const OF_DAEMON: [&str; 9] = [
    "web.config.file",
    "api.tokens-file",
    "api.insecure-no-auth",
    "web.enable-lifecycle",
    "history.path",
    "history.prometheus-url",
    "history.prometheus-token-file",
    "history.prometheus-ca-file",
    "history.prometheus-labels",
];

impl SettingSources for WithoutDaemon<'_> {
    fn get(&self, key: &str) -> Option<RawValue> {
        self.0.get(key).filter(|_| !OF_DAEMON.contains(&key))
    }

    fn switch(&self, key: &str) -> bool {
        !OF_DAEMON.contains(&key) && self.0.switch(key)
    }

    fn targets(&self) -> &[(TargetName, Section)] {
        self.0.targets()
    }

    fn scalers(&self) -> &[Located<ScalerItem>] {
        // Their streams are sampled.
        self.0.scalers()
    }
}
