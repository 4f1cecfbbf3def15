//! The command line: exit codes, one-line errors, who wins over whom.

use crate::common::{Redis, TOKEN, command, eventually, streamlag_with_env};

/// Runs to the end: exit code, standard output, standard error.
fn run(arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = command(arguments, env).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn version_and_help() {
    let (code, out, err) = run(&["--version"], &[]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(0), concat!("streamlag ", env!("CARGO_PKG_VERSION"), "\n"), "")
    );
    let (code, help, err) =
        run(&["--help"], &[("REDIS_URL", "redis://:hunter2@localhost"), ("STREAMLAG_API_TOKEN", "hunter3")]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for setting in streamlag::config::SETTINGS {
        if let Some(env) = setting.env {
            assert!(help.contains(env), "{env} is not in the help");
        }
        assert!(help.contains(setting.help.split_whitespace().next().unwrap()), "{}", setting.key);
    }
    assert!(!help.contains("hunter"), "{help}");
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let redis = Redis::start();
    let url = redis.url();
    let run = |arguments: &[&str]| {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command(arguments, &[]).stdout(full).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, code) in [
        (&["lag", "--redis.url", &url, "--groups", "*", "--streams", "*", "--wait", "0s"][..], 2),
        (&["config"], 1),
        (&["--config.check"], 1),
        (&["--version"], 1),
        (&["man"], 1),
    ] {
        let (exit, err) = run(arguments);
        assert_eq!(exit, Some(code), "{arguments:?} {err}");
        let last = err.lines().last().unwrap_or_default();
        assert_eq!(last, "streamlag: cannot print: No space left on device (os error 28)", "{arguments:?}");
    }
}

#[test]
fn bad_configuration_ends_with_2_and_one_line() {
    let check = |arguments: &[&str], env: &[(&str, &str)], expected: &str| {
        let (code, out, err) = run(arguments, env);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?} {err}");
        assert!(err.starts_with("streamlag: ") && err.ends_with('\n') && err.matches('\n').count() == 1, "{err:?}");
        assert!(err.contains(expected), "{err:?} lacks {expected:?}");
        assert!(!err.contains("hunter2"), "{err:?}");
    };
    check(
        &["--poll.interval", "1ms"],
        &[],
        "streamlag: invalid value \"1ms\" for --poll.interval: expected a duration between 50ms and 1d",
    );
    check(
        &[],
        &[("STREAMLAG_POLL_INTERVAL", "soon")],
        "invalid value \"soon\" for STREAMLAG_POLL_INTERVAL: expected a duration",
    );
    check(&["--nonsense"], &[], "streamlag: unknown flag --nonsense: see streamlag --help\n");
    check(
        &["--poll.intervall", "5s"],
        &[],
        "flag --poll.intervall: did you mean --poll.interval? See streamlag --help\n",
    );
    check(&["--redis.urll=redis://:hunter2@h"], &[], "unknown flag --redis.urll: did you mean --redis.url?");
    check(&["redis://:hunter2@h"], &[], "unexpected argument \"(not shown)\"");
    check(&["--lag.degraded", "-1"], &[], "\"-1\" for --lag.degraded: expected a whole number of at least 1\n");
    check(&["--poll.interval", "-5s"], &[], "\"-5s\" for --poll.interval: expected a duration between");
    check(&["--poll.spread", "-5%"], &[], "\"-5%\" for --poll.spread: expected a percentage between");
    check(&["-1"], &[], "unknown flag -1: see streamlag --help");
    let collectors = "consumers, consumer-health, rates, loss, states, streams, forecast";
    let expected = |named: &str| {
        format!("invalid collector \"nope\"{named}: expected a collector that can be turned on or off: {collectors}\n")
    };
    check(&["--collector.nope"], &[], &expected(" in \"--collector.nope\""));
    check(&["--no-collector.nope"], &[], &expected(" in \"--no-collector.nope\""));
    // What there is to show is lag, which cannot be turned off.
    check(&["--no-collector.groups"], &[], "invalid collector \"groups\"");
    check(&["--collector.rates=maybe"], &[], "--collector.rates");
    check(
        &[],
        &[("STREAMLAG_COLLECTOR_RATES", "maybe")],
        "invalid value \"maybe\" for STREAMLAG_COLLECTOR_RATES: expected true or false",
    );
    check(&["surplus"], &[], "surplus");
    check(&["--redis.timeout"], &[], "--redis.timeout");
    check(&["--redis.timeout", "1s", "--redis.timeout", "2s"], &[], "--redis.timeout");
    check(
        &["--config.file", "/nonexistent.yml"],
        &[],
        "invalid value \"/nonexistent.yml\" for --config.file: expected a file",
    );
    check(
        &["--web.config.file", "w.yml"],
        &[],
        "invalid value \"w.yml\" for --web.config.file: expected a file that can be read",
    );
    check(
        &["--api.tokens-file", "t"],
        &[],
        "invalid value \"t\" for --api.tokens-file: expected a file that can be read",
    );
    check(&["--lag.degraded", "10", "--lag.unhealthy", "5"], &[], "contradicts");
    check(&["--api.insecure-no-auth"], &[("STREAMLAG_API_TOKEN", "t")], "contradicts");
    check(
        &[],
        &[("STREAMLAG_API_TOKEN", "with blank")],
        "invalid value (not shown) for STREAMLAG_API_TOKEN: expected visible",
    );
    check(
        &[],
        &[("EVENT_TRANSPORT_USE_REDIS_STREAMS", "ja")],
        "invalid value \"ja\" for EVENT_TRANSPORT_USE_REDIS_STREAMS: expected true or false",
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, "redis:\n  urll: x\n").unwrap();
    check(&["--config.file", path], &[], "line 2: unknown setting \"redis.urll\": did you mean redis.url?");
    std::fs::write(path, "collector:\n  rates: true\n  nope: true\n").unwrap();
    check(&["--config.file", path], &[], &format!("line 3: {}", expected("")));
    std::fs::write(path, "collector.loss: [true, false]\n").unwrap();
    check(&["--config.file", path], &[], "line 1: collector.loss: expected one value, not 2");
    std::fs::write(path, "poll.interval: 1ms\n").unwrap();
    check(
        &["--config.file", path],
        &[],
        &format!("invalid value \"1ms\" for poll.interval in {path}, line 1: expected"),
    );
}

#[test]
fn an_unknown_variable_is_a_warning_and_a_near_miss_is_named() {
    let unknown = [
        ("STREAMLAG_STREAM", "orders"),
        ("STREAMLAG_NONSENSE", "hunter2"),
        ("STREAMLAG_SERVICE_HOST", "10.0.0.1"),
        ("STREAMLAG_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
    ];
    let (code, out, err) = run(&["--config.check"], &unknown);
    assert_eq!((code, out.as_str()), (Some(0), "the configuration is good\n"));
    let mut warnings: Vec<&str> = err.lines().collect();
    warnings.sort_unstable();
    let expected = [
        "streamlag: warning: unknown environment variable STREAMLAG_NONSENSE",
        "streamlag: warning: unknown environment variable STREAMLAG_STREAM: did you mean STREAMLAG_STREAMS?",
    ];
    assert_eq!(warnings, expected);

    let redis = Redis::start();
    let url = redis.url();
    // The alias wins.
    let env = [("STREAMLAG_REDIS_URL", url.as_str()), ("REDIS_URL", "redis://127.0.0.1:1"), ("STREAMLAG_STREAM", "x")];
    let streamlag = streamlag_with_env(&[], &env).ready();
    eventually("Redis is up", || streamlag.metric("streamlag_redis_up").filter(|up| *up == 1.0));
    let warnings = streamlag.log_lines("level=warn msg=\"unknown environment variable\"");
    assert!(
        warnings.len() == 1 && warnings[0].contains("variable=STREAMLAG_STREAM did_you_mean=STREAMLAG_STREAMS"),
        "{warnings:?}"
    );
    let (_, _, err) = run(&["--config.check"], &[("STREAMLAG_REDIS_URL", "http://:hunter2@h")]);
    assert!(err.contains("invalid value (not shown) for STREAMLAG_REDIS_URL: expected redis://"), "{err}");
}

#[test]
fn paths_in_the_configuration_file_are_relative_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streamlag.yml");
    let check = |text: &str, expected: &str| {
        std::fs::write(&path, text).unwrap();
        let (_, out, err) = run(&["--config.check", "--config.file", path.to_str().unwrap()], &[]);
        assert!(
            if expected.is_empty() { err.is_empty() && !out.is_empty() } else { err.contains(expected) },
            "{text}: {err}"
        );
    };
    std::fs::write(dir.path().join("pw"), "secret").unwrap();
    std::fs::write(dir.path().join("web.yml"), "").unwrap();
    std::fs::write(dir.path().join("tokens"), "").unwrap();
    check("redis: {password_file: pw}\n", "");
    check("redis: {password_file: ./pw}\nweb.config.file: web.yml\napi.tokens-file: tokens\n", "");
    check("targets:\n- name: a\n  redis: {password_file: pw}\n", "");
    check(&format!("redis: {{password_file: {}}}\n", dir.path().join("pw").display()), "");
    check("redis: {password_file: absent}\n", "invalid value \"absent\" for redis.password-file in ");
    // Elsewhere it is relative to the working directory.
    let (code, _, err) = run(&["--config.check", "--redis.password-file", "pw"], &[]);
    assert!(code == Some(2) && err.contains("a file that can be read"), "{err}");
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    // A value that is bad where it counts shows which one does.
    std::fs::write(path, "poll.interval: bad-file\n").unwrap();
    let check = |arguments: &[&str], env: &[(&str, &str)], expected: Result<(), &str>| {
        let mut all = vec!["--config.check", "--config.file", path];
        all.extend(arguments);
        let (code, out, err) = run(&all, env);
        match expected {
            Ok(()) => assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "the configuration is good\n", "")),
            Err(bad) => assert!(code == Some(2) && err.contains(bad), "{err}"),
        }
    };
    check(&[], &[], Err("bad-file"));
    check(&[], &[("STREAMLAG_POLL_INTERVAL", "bad-env")], Err("bad-env"));
    check(&[], &[("STREAMLAG_POLL_INTERVAL", "")], Err("bad-file"));
    check(&["--poll.interval", "bad-flag"], &[("STREAMLAG_POLL_INTERVAL", "1s")], Err("bad-flag"));
    check(&["--poll.interval", "1s"], &[("STREAMLAG_POLL_INTERVAL", "bad-env")], Ok(()));
    check(&[], &[("STREAMLAG_POLL_INTERVAL", "1s")], Ok(()));
}

#[test]
fn a_port_that_is_taken_ends_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, err) = run(&["--web.listen-address", &address], &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("cannot listen on {address}")), "{err}");
}

#[test]
fn the_health_check_asks_the_running_program() {
    let redis = Redis::start();
    let mut streamlag = streamlag_with_env(&["--redis.url", &redis.url()], &[]).ready();
    let address = streamlag.address.to_string();
    let healthcheck = || run(&["--healthcheck", "--web.listen-address", &address], &[]);
    assert_eq!(healthcheck(), (Some(0), String::new(), String::new()));
    // A check that expects TLS of a listener without it, and the other way round.
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    file("c.pem", &made.cert.pem());
    file("k.pem", &made.signing_key.serialize_pem());
    let web = file("web.yml", "tls_server_config: {cert_file: c.pem, key_file: k.pem}\n");
    let says = |arguments: &[&str], words: &str| {
        let (code, _, err) = run(arguments, &[]);
        assert!(code == Some(1) && err.contains(words) && err.matches('\n').count() == 1, "{err}");
    };
    let wrong = ["--healthcheck", "--web.listen-address", &address, "--web.config.file", &web];
    says(&wrong, "the server does not speak TLS");
    let tls = streamlag_with_env(&["--redis.url", &redis.url(), "--web.config.file", &web], &[]);
    says(&["--healthcheck", "--web.listen-address", &tls.address.to_string()], "the server expects TLS");
    streamlag.signal("-TERM");
    assert_eq!(streamlag.wait(), Some(0));
    let (code, _, err) = healthcheck();
    assert!(code == Some(1) && err.contains(&address) && err.matches('\n').count() == 1, "{err}");
}

#[test]
fn it_listens_on_every_address_it_is_given() {
    let redis = Redis::start();
    let url = redis.url();
    let arguments = [
        "--redis.url",
        url.as_str(),
        "--web.listen-address",
        "127.0.0.1:0,127.0.0.2:0",
        "--web.listen-address",
        "127.0.0.3:0",
    ];
    let streamlag = streamlag_with_env(&arguments, &[]);
    eventually("three listeners", || (streamlag.log_lines("msg=listening").len() == 3).then_some(()));
}

#[test]
fn logs_are_json_where_wanted_and_hold_no_secret() {
    let redis = Redis::start();
    redis.run("CONFIG SET requirepass hunter2");
    let url = format!("redis://:hunter2@127.0.0.1:{}", redis.port);
    let address = format!("127.0.0.1:{}", crate::common::free_port());
    let arguments =
        ["--redis.url", url.as_str(), "--web.listen-address", &address, "--log.format", "json", "--log.level", "trace"];
    let mut child =
        command(&arguments, &[("STREAMLAG_API_TOKEN", TOKEN)]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually("it is ready", || {
        let (code, _, _) = run(&["--healthcheck", "--web.listen-address", &address], &[]);
        (code == Some(0)).then_some(())
    });
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut log = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut log).unwrap();
    assert!(log.lines().count() >= 3);
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["ts"].is_string() && line["level"].is_string() && line["msg"].is_string(), "{line}");
    }
    assert!(!log.contains("hunter2") && !log.contains(TOKEN), "{log}");
}
