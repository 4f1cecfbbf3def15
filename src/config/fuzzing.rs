//! What must hold of any configuration: see [`crate::fuzzing`].

use std::ffi::OsString;
use std::path::Path;

use crate::config::file::{File, FileValues, Located, ScalerItem, Section};
use crate::config::redis_target::dial_in_plain_text;
use crate::config::settings::Flag;
use crate::config::values::ValueOrigin;
use crate::config::web::WebConfig;
use crate::config::{Config, RawValue, SETTINGS, Setting, SettingSources};
use crate::fuzzing::{OTHER_SECRET, SECRET, assert_one_line};
use crate::model::TargetName;

/// What stands for the value of settings that name other files; nothing is opened here.
const FILE: &str = "FILE";

/// Any text as a configuration file. The error is one line, and does not depend on the password.
pub fn config_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(describe) = said_of_file(text) {
        let other = text.replace(&password(SECRET), &password(OTHER_SECRET));
        assert_eq!(Some(describe), said_of_file(&other));
    }
}

/// The error for a file; `None` where it names other files, or has a password in an unexpected place.
fn said_of_file(text: &str) -> Option<String> {
    let file = match File::parse(text, Path::new("streamlag.yml")) {
        Ok(file) => file,
        Err(error) => {
            assert_one_line(&error.to_string());
            return Some(error.to_string());
        }
    };
    let own = file.targets().iter().flat_map(|(_, own)| own.iter());
    let own: Vec<_> = own.filter_map(|(key, entry)| Some((Setting::find(key)?, entry.values.as_slice()))).collect();
    let given = || {
        let for_all = SETTINGS.iter().filter_map(|setting| Some((setting, file.get(setting.key)?.values.as_slice())));
        for_all.chain(own.iter().copied())
    };
    for (setting, values) in given() {
        assert!(setting.flag == Flag::List || values.len() == 1, "{}: {values:?}", setting.key);
    }
    let in_scaler = |secret| file.scalers().iter().any(|scaler| format!("{scaler:?}").contains(secret));
    let in_setting = |secret| given().any(|(setting, values)| !setting.secret && values.concat().contains(secret));
    let is_elsewhere = |secret| in_setting(secret) || in_scaler(secret);
    let names_files = given().any(|(setting, _)| setting.value_name == FILE);
    // For TLS, what the system trusts is read, which takes time.
    let is_tls = given().any(|(setting, url)| setting.key == "redis.url" && url.concat().starts_with("rediss"));
    if is_elsewhere(SECRET) || is_elsewhere(OTHER_SECRET) || names_files || is_tls {
        return None;
    }
    Some(match Config::from_sources(&Only(&file)) {
        Ok(config) => format!("{config:?}"),
        Err(problem) => {
            assert_one_line(&problem.to_string());
            problem.to_string()
        }
    })
}

/// The piece of a URL that holds a password.
fn password(secret: &str) -> String {
    format!("://:{secret}@")
}

/// A file, and nothing on the command line or in the environment.
struct Only<'a>(&'a File);

impl SettingSources for Only<'_> {
    fn get(&self, key: &str) -> Option<RawValue> {
        let setting = Setting::find(key)?;
        if let Some(entry) = self.0.get(key) {
            return Some(entry.given(setting, ValueOrigin::File));
        }
        Some(RawValue::new(setting, ValueOrigin::Default, vec![OsString::from(setting.default?)]))
    }

    fn switch(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(FileValues::switch)
    }

    fn targets(&self) -> &[(TargetName, Section)] {
        self.0.targets()
    }

    fn scalers(&self) -> &[Located<ScalerItem>] {
        self.0.scalers()
    }
}

/// Any text as a URL, and as what stands around a password in one. The error is one line, and is the same
/// for any password.
pub fn redis_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    said_of_url(text);
    let (before, after) = text.split_once(' ').unwrap_or(("", text));
    for scheme in ["redis", "rediss"] {
        let describe = |secret| said_of_url(&format!("{scheme}://{before}:{secret}@{after}"));
        assert_eq!(describe(SECRET), describe(OTHER_SECRET));
    }
    // After another question mark it is a part of what is there, such as the user's name.
    if !before.contains('?') {
        let describe = |secret| said_of_url(&format!("unix://{before}?pass={secret}&{after}"));
        assert_eq!(describe(SECRET), describe(OTHER_SECRET));
    }
}

fn said_of_url(url: &str) -> String {
    let describe = match dial_in_plain_text(url) {
        Ok(endpoint) => format!("{endpoint} {endpoint:?}"),
        Err(error) => error.to_string(),
    };
    assert_one_line(&describe);
    describe
}

/// No file is there: what is in the files that it names is another matter.
const NO_FOLDER: &str = "/nonexistent";

/// Any text as a web configuration file. The error is one line, and is the same whatever the secrets in it are.
pub fn web_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Absolute names would lead out of the folder that is not there.
    if text.contains("_file") && text.contains('/') {
        return;
    }
    let describe = said_of_web_config(text);
    // A secret is where one belongs, a user's hash or a key, and looks like no name. Names of files are shown.
    let places = ["alice: ", "key: "].map(|place| format!("{place}${SECRET}$"));
    let in_place: usize = places.iter().map(|place| text.matches(place).count()).sum();
    if text.matches(SECRET).count() == in_place && !describe.contains("_file \"") {
        assert_eq!(describe, said_of_web_config(&text.replace(SECRET, OTHER_SECRET)));
    }
}

fn said_of_web_config(text: &str) -> String {
    match WebConfig::parse(text, Path::new(NO_FOLDER)) {
        Ok(config) => format!("{config:?}"),
        Err(error) => {
            assert_one_line(&error.to_string());
            error.to_string()
        }
    }
}
