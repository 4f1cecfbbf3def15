//! The command line and the environment, by clap, from the table of settings.

use std::ffi::OsString;
use std::path::Path;
use std::time::SystemTime;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::file::{Entry, File, Section};
use crate::config::nearest::nearest;
use crate::config::settings::{self, Flag, SETTINGS, Setting};
use crate::config::values::{ConfigError, Origin, RawValue};
use crate::config::{API_TOKEN_VARIABLE, Config, SettingSources};
use crate::http::tokens;
use crate::model::{TargetName, names};

/// What the names of the program's own environment variables begin with.
const PREFIX: &str = "STREAMLAG_";

/// Unknown environment variables that are warned of at most.
const MAX_UNKNOWN: usize = 20;

/// What an error repeats of an unknown argument or variable, in bytes: more than the longest that there is.
const MAX_SHOWN: usize = 80;

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Run with this configuration.
    Run(Box<Config>),
    /// Say that this configuration is good.
    Check(Box<Config>),
    /// Ask the running program whether it is healthy.
    Healthcheck(Box<Config>),
    /// Print this: the help or the version.
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
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, ConfigError> {
    let matches = match command().try_get_matches_from(with_negative_values(arguments)) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Request::Print(error.render().to_string()));
        }
        Err(error) => {
            let describe =
                || ConfigError::new(format!("{}; see streamlag --help", first_paragraph(&error.render().to_string())));
            return Err(unknown_collector(&error).or_else(|| unknown_argument(&error)).unwrap_or_else(describe));
        }
    };
    if let Some(("token", token)) = matches.subcommand() {
        return make_token(token).map(Request::Print);
    }
    let mut given = AllSources { matches, file: File::default() };
    if let Some(path) = given.get("config.file") {
        let path_text = path.text()?;
        given.file = File::read(Path::new(&path_text)).map_err(|error| path.problem(&error))?;
    }
    let config = Box::new(Config::from_sources(&given)?);
    Ok(if given.switch("healthcheck") {
        Request::Healthcheck(config)
    } else if given.switch("config.check") {
        Request::Check(config)
    } else {
        Request::Run(config)
    })
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
    Command::new("streamlag")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(format!("Event transport (environment only):\n{transport}\n{}", AFTER.join("\n\n")))
        .disable_help_subcommand(true)
        .args(SETTINGS.iter().filter(|setting| setting.flag != Flag::None).map(argument))
        .args(SETTINGS.iter().filter_map(opposite))
        .args_conflicts_with_subcommands(true)
        .subcommand(
            Command::new("token")
                .about("Make an API token: print its secret, once, and the line that stores it")
                .arg(Arg::new("name").value_name("NAME").required(true).help("Who or what uses it; shown in logs"))
                .arg(
                    Arg::new("expires")
                        .long("expires")
                        .value_name("WHEN")
                        .help("When it ends: 90d from now, 2027-01-31 or 2027-01-31T12:00:00Z; never where not given"),
                ),
        )
}

/// Makes a token and says what to do with it.
fn make_token(matches: &ArgMatches) -> Result<String, ConfigError> {
    let text = |key: &str| matches.get_one::<String>(key).map(String::as_str);
    let expires = text("expires").map(|when| expiry(when, SystemTime::now())).transpose()?;
    let name = text("name").unwrap_or_default();
    let made = tokens::make(name, expires)
        .map_err(|why| ConfigError::new(format!("invalid value {name:?} for NAME: {why}")))?;
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
        ConfigError::new(format!("invalid value {when:?} for --expires: {takes}"))
    })
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
    arg.value_name(setting.value_name).value_parser(clap::value_parser!(OsString))
}

/// The flag that says the opposite of a toggle.
fn opposite(setting: &'static Setting) -> Option<Arg> {
    let Flag::Toggle(name) = setting.flag else { return None };
    Some(Arg::new(name).long(name).hide(true).action(ArgAction::SetTrue).overrides_with(setting.key))
}

/// What is said of a flag that turns a collector on or off and that there is not.
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

/// What is said of an argument that there is not: the flag that may have been meant, and where help is.
fn unknown_argument(error: &clap::Error) -> Option<ConfigError> {
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
        return Some(ConfigError::new(format!(
            "unexpected argument {shown:?}: expected flags only; see streamlag --help"
        )));
    }
    let keys = SETTINGS.iter().filter(|setting| setting.flag != Flag::None).map(|setting| setting.key);
    let near = nearest(flag.trim_start_matches('-'), keys.chain(["help", "version"]));
    Some(ConfigError::new(match near {
        Some(near) => format!("unknown flag {shown}: did you mean --{near}? See streamlag --help"),
        None => format!("unknown flag {shown}: see streamlag --help"),
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
            return Some(RawValue::new(setting, Origin::Flag, values));
        }
        // The alias has the program's own name: it is meant where both are set.
        for variable in [setting.env_alias, setting.env].into_iter().flatten() {
            if let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
                return Some(RawValue::new(setting, Origin::Environment(variable), vec![value]));
            }
        }
        if let Some(entry) = self.file.get(key) {
            return Some(entry.given(setting, Origin::File));
        }
        Some(RawValue::new(setting, Origin::Default, vec![setting.default?.into()]))
    }

    fn switch(&self, key: &str) -> bool {
        let in_file = || self.file.get(key).is_some_and(Entry::switch);
        self.matches.get_flag(key) || in_file()
    }

    fn api_token(&self) -> Option<String> {
        let token = std::env::var_os(API_TOKEN_VARIABLE)?;
        // What is not UTF-8 cannot be sent either; what is sent in its place is refused as such.
        Some(token.to_string_lossy().into_owned()).filter(|token| !token.is_empty())
    }

    fn targets(&self) -> &[(TargetName, Section)] {
        self.file.targets()
    }
}

impl AllSources {
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
