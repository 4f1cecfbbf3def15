//! Redis Cluster: real ones, of three masters and three replicas, while nothing happens, while slots move and while nodes die.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use crate::common::cluster::{Cluster, GOES_ON, GROUP, MASTERS, STREAMS, TAKES_OVER, Traffic, USER};
use crate::common::cluster::{address, cli, id, is_master, owns, slot};
use crate::common::observer::{Observer, Truth};
use crate::common::{Redis, Streamlag, cluster, eventually, grants, servers, streamlag, value_of};
use redis::Value;

fn keys() -> String {
    (0..STREAMS).map(|n| format!("events:{n}")).collect::<Vec<_>>().join(",")
}

fn labels(stream: &str) -> String {
    format!("{{stream=\"{stream}\",consumer_group=\"{GROUP}\"}}")
}

fn truth(lags: &BTreeMap<String, u64>) -> Truth {
    lags.iter().map(|(stream, lag)| (labels(stream), *lag as f64)).collect()
}

fn watch(url: &str, more: &[&str]) -> Streamlag {
    watch_these(url, &keys(), more)
}

/// The same, of streams that are found.
fn watch_for(cluster: &Cluster, pattern: &str) -> Streamlag {
    cluster.grant_scan();
    watch_these(&cluster.url(), pattern, &["--discovery.interval", "1s"])
}

fn watch_these(url: &str, streams: &str, more: &[&str]) -> Streamlag {
    let base = ["--redis.mode", "cluster", "--redis.url", url, "--streams", streams];
    streamlag(&[&base[..], more].concat())
}

/// Waits until every lag is shown, exact and right.
fn all_are_exact(streamlag: &Streamlag, lags: &BTreeMap<String, u64>, when: &str) {
    eventually(&format!("every lag is exact {when}"), || {
        let page = streamlag.metrics();
        let is_right = |(stream, lag): (&String, &u64)| {
            let labels = labels(stream);
            value_of(&page, &format!("event_consumer_lag{labels}")) == Some(*lag as f64)
                && value_of(&page, &format!("event_consumer_lag_uncertainty{labels}")) == Some(0.0)
        };
        lags.iter().all(is_right).then_some(())
    });
}

fn node_metric(page: &str, metric: &str, node: &Redis) -> Option<f64> {
    value_of(page, &format!("streamlag_redis_node_{metric}{{node=\"{}\"}}", address(node)))
}

/// How many of these streams a page says can be read.
fn readable<'a>(page: &str, streams: impl Iterator<Item = &'a String>) -> usize {
    let is_up = |stream: &&String| value_of(page, &format!("event_stream_up{{stream=\"{stream}\"}}")) == Some(1.0);
    streams.filter(is_up).count()
}

#[test]
fn every_stream_is_read_from_its_master_with_the_documented_grants() {
    for server in servers() {
        let cluster = Cluster::start(&server, &[]);
        let lags = cluster.fill();
        // The first seed is nobody: the others do.
        let nobody = format!("redis://{USER}:pw@127.0.0.1:1/0");
        let streamlag = watch(&nobody, &["--redis.nodes", &cluster.others()]).ready();
        all_are_exact(&streamlag, &lags, &format!("on {}", server.display()));
        let page = streamlag.metrics();
        let streams: Vec<f64> =
            cluster.nodes[..MASTERS].iter().map(|node| node_metric(&page, "streams", node).unwrap()).collect();
        assert_eq!(streams.iter().sum::<f64>(), STREAMS as f64);
        assert!(streams.iter().all(|streams| *streams > 0.0), "{streams:?}");
        for node in &cluster.nodes[..MASTERS] {
            assert_eq!(node_metric(&page, "up", node), Some(1.0));
        }
        assert_eq!(node_metric(&page, "up", &cluster.nodes[MASTERS]), None, "a replica is not asked");
        assert_eq!(value_of(&page, "streamlag_redis_redirects_total{kind=\"moved\"}"), Some(0.0));
        assert_eq!(value_of(&page, "streamlag_polls_total{outcome=\"partial\"}"), Some(0.0), "{:?}", streamlag.log());
        for node in &cluster.nodes {
            let Value::Array(refused) = node.run("ACL LOG 128") else { panic!("no log") };
            let refused = format!("{refused:?}");
            for needed in ["cluster", "asking", "xinfo", "multi"] {
                assert!(!refused.contains(&format!("\"{needed}")), "{}: {refused}", server.display());
            }
        }
    }
}

#[test]
fn patterns_find_streams_on_every_master() {
    for server in servers() {
        let cluster = Cluster::start(&server, &[]);
        let mut lags = cluster.fill();
        let streamlag = watch_for(&cluster, "events:*").ready();
        let found = |lags: &BTreeMap<String, u64>, when: &str| {
            all_are_exact(&streamlag, lags, when);
            let expected = lags.len() as f64;
            eventually(&format!("as many as there are, {when}"), || {
                let page = streamlag.metrics();
                let on_nodes = cluster.nodes[..MASTERS].iter().filter_map(|node| node_metric(&page, "streams", node));
                let counts = ["streamlag_streams", "streamlag_discovery_streams"].map(|name| value_of(&page, name));
                (counts == [Some(expected); 2] && on_nodes.sum::<f64>() == expected).then_some(())
            });
        };
        found(&lags, "at first");
        assert!(streamlag.metric("streamlag_discovery_last_scan_timestamp_seconds").unwrap() > 0.0);
        // One more of each master, and as many less.
        for node in &cluster.nodes[..MASTERS] {
            let new = (0..).map(|n| format!("events:new:{n}")).find(|stream| owns(node, stream)).unwrap();
            node.add(&new, 5);
            node.run(&format!("XGROUP CREATE {new} {GROUP} 0"));
            lags.insert(new, 5);
        }
        found(&lags, "with new ones");
        for node in &cluster.nodes[..MASTERS] {
            let old = lags.keys().find(|stream| owns(node, stream)).unwrap().clone();
            node.run(&format!("DEL {old}"));
            lags.remove(&old);
            eventually("the deleted one leaves", || (!streamlag.metrics().contains(&labels(&old))).then_some(()));
        }
        found(&lags, "without old ones");
        assert_eq!(streamlag.log_lines("stream read failed"), Vec::<String>::new());
        assert_eq!(streamlag.metric("streamlag_redis_redirects_total{kind=\"moved\"}"), Some(0.0));
    }
}

#[test]
fn a_slot_that_is_on_its_way_is_followed_key_by_key() {
    for server in servers() {
        a_slot_is_on_its_way(&server, false);
    }
}

#[test]
fn a_stream_that_a_pattern_found_is_not_lost_on_its_way() {
    for server in servers() {
        a_slot_is_on_its_way(&server, true);
    }
}

fn a_slot_is_on_its_way(server: &Path, are_found: bool) {
    let cluster = Cluster::start(server, &[]);
    let streams = ["events:{way}:gone", "events:{way}:here"];
    let from = cluster.node_of(streams[0]);
    let to = (0..MASTERS).find(|node| *node != from).unwrap();
    let [source, target] = [&cluster.nodes[from], &cluster.nodes[to]];
    for (stream, read) in streams.into_iter().zip([5, 7]) {
        source.add(stream, 300);
        source.run(&format!("XGROUP CREATE {stream} {GROUP} 0"));
        source.read(stream, GROUP, "instance-1", read);
    }
    let lags: BTreeMap<String, u64> = streams.iter().map(|s| (*s).to_owned()).zip([295, 293]).collect();
    let streamlag = if are_found {
        cluster.grant_scan();
        watch_these(&cluster.url(), "events:{way}:*", &[])
    } else {
        watch_these(&cluster.url(), &streams.join(","), &[])
    };
    let streamlag = streamlag.ready();
    all_are_exact(&streamlag, &lags, "before");
    let observer = Observer::start(streamlag.address, truth(&lags));
    let redirects = |kind| streamlag.metric(&format!("streamlag_redis_redirects_total{{kind=\"{kind}\"}}")).unwrap();

    // As redis-cli does it, but with all the time in the world.
    let slot = slot(source, streams[0]);
    target.run(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(source)));
    source.run(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(target)));
    let migrate = |stream: &str| source.run(&format!("MIGRATE 127.0.0.1 {} {stream} 0 5000", target.port));
    migrate(streams[0]);
    eventually("the key that is gone is asked for where it went", || (redirects("ask") > 3.0).then_some(()));
    all_are_exact(&streamlag, &lags, "half way");
    if !are_found {
        grants_are_needed(&cluster, server, streams[0]);
    }

    // Somebody adds to it there, and reads from it.
    let mut asking = target.connection();
    let mut pipe = redis::pipe();
    pipe.cmd("ASKING").ignore().cmd("XADD").arg(streams[0]).arg("*").arg("n").arg(1).ignore();
    let more = lags.clone().into_iter().map(|(s, lag)| (s.clone(), lag + u64::from(s == streams[0]))).collect();
    observer.also(truth(&more));
    pipe.query::<()>(&mut asking).unwrap();
    all_are_exact(&streamlag, &more, "half way, with one more");
    if are_found {
        // Where it was it is looked for again, over another connection, and where it goes not for most of a minute.
        let hellos = || streamlag.metric("streamlag_redis_commands_total{command=\"hello\"}").unwrap();
        let before = hellos();
        source.run("CLIENT KILL TYPE normal SKIPME yes");
        eventually("another connection", || (hellos() > before).then_some(()));
        for _ in 0..3 {
            observer.next_poll();
        }
    } else {
        assert_eq!(redirects("moved"), 0.0);
    }

    migrate(streams[1]);
    for node in [target, source] {
        node.run(&format!("CLUSTER SETSLOT {slot} NODE {}", id(target)));
    }
    eventually("the streams are known to have moved", || {
        let page = streamlag.metrics();
        (node_metric(&page, "streams", target) == Some(2.0)).then_some(())
    });
    all_are_exact(&streamlag, &more, "after");
    let asked = redirects("ask");
    observer.next_poll();
    assert_eq!(redirects("ask"), asked, "nothing is on its way any more");
    observer.nothing_was_wrong();
    assert_eq!((observer.lost(), observer.fewest_streams()), (0.0, 2));
}

/// A stream moves between two samples, and a search that begins in the second does not meet it any more where it was.
#[test]
fn a_stream_that_moves_while_it_is_looked_for_anew_is_not_lost() {
    // It is nothing that servers differ in.
    let server = servers().remove(0);
    let cluster = Cluster::start(&server, &[]);
    cluster.grant_scan();
    let stream = "events:moves";
    let from = cluster.node_of(stream);
    let [source, target] = [&cluster.nodes[from], &cluster.nodes[(from + 1) % MASTERS]];
    source.add(stream, 300);
    source.run(&format!("XGROUP CREATE {stream} {GROUP} 0"));
    let lags = BTreeMap::from([(stream.to_owned(), 300)]);
    let streamlag = watch_these(&cluster.url(), "events:m*", &["--poll.interval", "2s"]).ready();
    all_are_exact(&streamlag, &lags, "before");
    let observer = Observer::start(streamlag.address, truth(&lags));
    let slot = slot(source, stream);

    streamlag.next_sample();
    target.run(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(source)));
    source.run(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(target)));
    source.run(&format!("MIGRATE 127.0.0.1 {} {stream} 0 5000", target.port));
    for node in [target, source] {
        node.run(&format!("CLUSTER SETSLOT {slot} NODE {}", id(target)));
    }
    source.run("CLIENT KILL TYPE normal SKIPME yes");
    (0..3).for_each(|_| streamlag.next_sample());
    all_are_exact(&streamlag, &lags, "after");
    observer.nothing_was_wrong();
    assert_eq!((observer.lost(), observer.fewest_streams()), (0.0, 1), "{}", server.display());
}

/// Without one of the grants for clusters, what is missing is named. The stream is on its way.
fn grants_are_needed(cluster: &Cluster, server: &Path, stream: &str) {
    let documented = [grants::on(server, "events:*"), cluster::documented_grants()].concat();
    for (user, missing) in [("no-slots", "+cluster|slots"), ("no-asking", "+asking")] {
        let words: Vec<&str> = documented.iter().map(String::as_str).filter(|word| *word != missing).collect();
        for node in &cluster.nodes {
            node.run(&format!("ACL SETUSER {user} on >pw {}", words.join(" ")));
        }
        let url = cluster.nodes[0].url_as(user);
        let streamlag = streamlag(&["--redis.mode", "cluster", "--redis.url", &url, "--streams", stream]);
        let command = missing.trim_start_matches('+').split('|').next().unwrap();
        eventually(&format!("{}: it says what is missing: {missing}", server.display()), || {
            let said = streamlag.log_lines("NOPERM").pop()?;
            assert!(said.to_ascii_lowercase().contains(command), "{said}");
            Some(())
        });
    }
}

/// Both watch the same reshard: one that is told the streams, and one that looks for them.
#[test]
fn a_reshard_while_sampling_costs_no_stream_and_no_lag_and_invents_no_loss() {
    for server in servers() {
        let cluster = Cluster::start(&server, &[]);
        let lags = cluster.fill();
        let watchers = [watch(&cluster.url(), &[]), watch_for(&cluster, "events:*")].map(|streamlag| {
            let streamlag = streamlag.ready();
            all_are_exact(&streamlag, &lags, "before");
            let observer = Observer::start(streamlag.address, truth(&lags));
            (streamlag, observer)
        });
        let traffic = Traffic::start(&cluster, lags.keys().cloned().collect());
        let before = node_metric(&watchers[0].0.metrics(), "streams", &cluster.nodes[0]).unwrap();
        let [from, to] = [0, 1].map(|node| id(&cluster.nodes[node]));
        let seed = address(&cluster.nodes[0]);
        // Two of the streams are in them. The tool asks every master about each, and each writes its file.
        let way = ["--cluster-from", &from, "--cluster-to", &to, "--cluster-slots", "200", "--cluster-yes"];
        cli(&[&["--cluster", "reshard", &seed][..], &way].concat());
        for (streamlag, _) in &watchers {
            eventually("streams have another node", || {
                let page = streamlag.metrics();
                let after = node_metric(&page, "streams", &cluster.nodes[0])?;
                (after < before && readable(&page, lags.keys()) == STREAMS).then_some(())
            });
        }
        let turns = traffic.stop();
        for (streamlag, observer) in &watchers {
            all_are_exact(streamlag, &lags, "after");
            let [moved, asked] = ["moved", "ask"]
                .map(|kind| streamlag.metric(&format!("streamlag_redis_redirects_total{{kind=\"{kind}\"}}")).unwrap());
            observer.nothing_was_wrong();
            assert_eq!((observer.lost(), observer.fewest_streams()), (0.0, STREAMS));
            let unread = streamlag.log_lines("stream read failed");
            let server = server.display();
            eprintln!("{server}: {before} streams, {moved} moved, {asked} asked for; {turns} entries added and read");
            assert!(unread.is_empty(), "{unread:#?}");
        }
    }
}

/// A master dies, or falls silent: only its streams are gone meanwhile, and the replica that takes over is followed.
fn a_master_goes(server: &Path, go: impl Fn(&mut Redis)) -> (Cluster, Streamlag, BTreeMap<String, u64>) {
    let mut cluster = Cluster::start(server, &GOES_ON);
    let lags = cluster.fill();
    // Shorter intervals would be too short for a loaded machine: what is three of them old is not shown.
    let streamlag = watch(&cluster.url(), &["--poll.interval", "500ms"]).ready();
    all_are_exact(&streamlag, &lags, "before");
    let observer = Observer::start(streamlag.address, truth(&lags));
    let victim = cluster.node_of("events:0");
    let (its, others): (Vec<String>, Vec<String>) =
        lags.keys().cloned().partition(|stream| owns(&cluster.nodes[victim], stream));
    assert!(!its.is_empty() && !others.is_empty());

    let traffic = Traffic::start(&cluster, lags.keys().cloned().collect());
    let began = Instant::now();
    go(&mut cluster.nodes[victim]);
    let mut timeline = Vec::new();
    let (mut unread, mut promoted, mut followed) = (None, None, None);
    eventually("the replica that took over is followed", || {
        let page = streamlag.metrics();
        let at = Some(began.elapsed());
        assert_eq!(value_of(&page, "streamlag_redis_up"), Some(1.0), "{:?}", streamlag.log());
        assert_eq!(readable(&page, others.iter()), others.len(), "the others go on");
        let read = readable(&page, its.iter());
        if read == 0 && unread.is_none() {
            unread = at;
            assert_eq!(node_metric(&page, "up", &cluster.nodes[victim]), Some(0.0));
            let health = streamlag.json("health");
            let error = health["error"].as_str().unwrap_or_default();
            assert!(error.starts_with(&format!("node {}: ", address(&cluster.nodes[victim]))), "{health}");
            timeline.push(format!("unreadable after {:.2?}", began.elapsed()));
        }
        if promoted.is_none() && cluster.nodes[MASTERS..].iter().any(is_master) {
            promoted = at;
            timeline.push(format!("a replica is master after {:.2?}", began.elapsed()));
        }
        if read == its.len() && unread.is_some() {
            followed = at;
            timeline.push(format!("followed after {:.2?}", began.elapsed()));
        }
        followed
    });
    // Before 7.0 a lag in a stream that changes all the time is not always exact.
    assert!(traffic.stop() > 0);
    all_are_exact(&streamlag, &lags, "after");
    observer.nothing_was_wrong();
    assert_eq!(observer.lost(), 0.0);
    let said = streamlag.log_lines("node poll failed");
    assert!((1..=3).contains(&said.len()), "{said:#?}");
    assert_eq!(streamlag.log_lines("stream read failed"), Vec::<String>::new(), "it is the node's trouble");
    eprintln!("{}: {}", server.display(), timeline.join(", "));
    (cluster, streamlag, lags)
}

#[test]
fn a_master_that_dies_costs_its_own_streams_until_its_replica_is_followed() {
    for server in servers() {
        let (mut cluster, streamlag, lags) = a_master_goes(&server, Redis::stop);
        // It comes back as a replica, and is not asked any more.
        let dead = (0..MASTERS).find(|node| !cluster.nodes[*node].is_answering()).unwrap();
        cluster.start_again(dead);
        eventually("it is a replica", || (!is_master(&cluster.nodes[dead])).then_some(()));
        streamlag.next_sample();
        all_are_exact(&streamlag, &lags, "with the dead one back");
        assert_eq!(node_metric(&streamlag.metrics(), "up", &cluster.nodes[dead]), None);
    }
}

#[test]
fn a_master_that_falls_silent_does_the_same() {
    let server = &servers()[0];
    let (cluster, streamlag, lags) = a_master_goes(server, |node| node.signal("-STOP"));
    for node in &cluster.nodes[..MASTERS] {
        node.signal("-CONT");
    }
    streamlag.next_sample();
    all_are_exact(&streamlag, &lags, "with the silent one back");
}

#[test]
fn what_the_cluster_refuses_is_said_and_recovered_from() {
    let mut cluster = Cluster::start(&servers()[0], &TAKES_OVER);
    let lags = cluster.fill();
    let streamlag = watch(&cluster.url(), &[]).ready();
    all_are_exact(&streamlag, &lags, "before");
    let observer = Observer::start(streamlag.address, truth(&lags));
    // A master and its replica, in a cluster that wants to be whole: the others serve nobody either.
    let victim = cluster.node_of("events:0");
    let primary = id(&cluster.nodes[victim]);
    let nodes: String = redis::cmd("CLUSTER").arg("NODES").query(&mut cluster.nodes[victim].connection()).unwrap();
    let replica = nodes.lines().find(|line| line.contains("slave") && line.contains(&primary)).unwrap();
    let replica = (MASTERS..2 * MASTERS).find(|node| replica.contains(&address(&cluster.nodes[*node]))).unwrap();
    cluster.nodes[replica].stop();
    cluster.nodes[victim].stop();
    // Polls before that may have failed otherwise: each of the others notices by itself, after a second, that these are gone.
    eventually("nobody serves", || {
        let health = streamlag.json("health");
        let is_down = health["error"].as_str().is_some_and(|error| error.contains("CLUSTERDOWN"));
        (is_down && health["redis_connected"] == false).then_some(())
    });
    assert_eq!(streamlag.metric("streamlag_redis_up"), Some(0.0));
    let page = streamlag.metrics();
    assert!(cluster.nodes[..MASTERS].iter().all(|node| node_metric(&page, "up", node) == Some(0.0)), "{page}");
    observer.nothing_was_wrong();
    drop(observer);
    // The data of those who were stopped is gone with them: nothing was saved.
    cluster.start_again(victim);
    eventually("the others are read again", || {
        let page = streamlag.metrics();
        let here =
            lags.keys().filter(|stream| value_of(&page, &format!("event_consumer_lag{}", labels(stream))).is_some());
        let right = lags.iter().all(|(stream, lag)| {
            value_of(&page, &format!("event_consumer_lag{}", labels(stream))).is_none_or(|shown| shown == *lag as f64)
        });
        (right && here.count() > STREAMS / 3).then_some(())
    });
}

#[test]
fn a_node_that_is_said_to_be_where_it_is_not_costs_its_own_streams() {
    let cluster = Cluster::start(&servers()[0], &GOES_ON);
    let lags = cluster.fill();
    let lost = cluster.node_of("events:0");
    let lost_streams = lags.keys().filter(|stream| owns(&cluster.nodes[lost], stream)).count();
    // As behind a router that nobody told the cluster of.
    cluster.nodes[lost].run("CONFIG SET cluster-announce-port 1");
    for (at, node) in cluster.nodes.iter().enumerate().filter(|(at, _)| *at != lost) {
        eventually(&format!("node {at} believes it"), || {
            let nodes: String = redis::cmd("CLUSTER").arg("NODES").query(&mut node.connection()).unwrap();
            nodes.contains("127.0.0.1:1@").then_some(())
        });
    }
    let seed = cluster.nodes[(lost + 1) % MASTERS].url_as(USER);
    let streamlag = watch(&seed, &[]).ready();
    eventually("the others are read", || {
        (readable(&streamlag.metrics(), lags.keys()) == STREAMS - lost_streams).then_some(())
    });
    let page = streamlag.metrics();
    assert_eq!(value_of(&page, "streamlag_redis_node_up{node=\"127.0.0.1:1\"}"), Some(0.0), "{page}");
    let groups = streamlag.json("consumer-lag");
    let error = groups["streams"]["events:0"]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.starts_with("node 127.0.0.1:1: ") && error.contains("refused"), "{error}");
}

#[test]
fn without_a_cluster_it_says_so_and_waits_for_one() {
    // Nobody at all; a server that is none; and one that has not been given slots.
    let nobody = watch("redis://127.0.0.1:1/0", &["--redis.nodes", "127.0.0.1:2"]);
    let plain = Redis::start();
    let no_cluster = watch(&plain.url_of_everybody(), &[]);
    let options = ["--cluster-enabled", "yes"];
    let lonely = Redis::start_at(crate::common::free_port(), Path::new("redis-server"), &options);
    lonely.wait();
    let without_slots = watch(&lonely.url_of_everybody(), &[]);
    for (streamlag, expected) in [
        (&nobody, "127.0.0.1:1: Connection refused"),
        (&no_cluster, "This instance has cluster support disabled"),
        (&without_slots, "no slots are given out"),
    ] {
        eventually(&format!("it says {expected}"), || {
            let line = streamlag.log_lines("poll failed").pop()?;
            assert!(line.contains(expected), "{line}");
            Some(())
        });
    }
}

#[test]
fn a_reload_with_other_streams_keeps_what_is_known_of_those_that_stay() {
    let cluster = Cluster::start(&servers()[0], &[]);
    let lags = cluster.fill();
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |streams: &[&String]| {
        let streams: Vec<&str> = streams.iter().map(|stream| stream.as_str()).collect();
        let nodes = cluster.others().replace(',', "\", \"");
        let redis = format!("{{url: \"{}\", mode: cluster, nodes: [\"{nodes}\"]}}", cluster.url());
        std::fs::write(&file, format!("redis: {redis}\nstreams: [\"{}\"]\n", streams.join("\", \""))).unwrap();
    };
    let all: Vec<&String> = lags.keys().collect();
    write(&all[..40]);
    // A master that is later than an interval, as on a machine that runs other tests, is asked anew.
    let streamlag = streamlag(&["--config.file", file.path().to_str().unwrap(), "--poll.interval", "1s"]).ready();
    let some = |streams: &[&String]| -> BTreeMap<String, u64> {
        streams.iter().map(|stream| ((*stream).clone(), lags[*stream])).collect()
    };
    all_are_exact(&streamlag, &some(&all[..40]), "before");
    let connections = || streamlag.metric("streamlag_redis_commands_total{command=\"hello\"}").unwrap();
    let before = connections();
    write(&all[20..]);
    streamlag.signal("-HUP");
    all_are_exact(&streamlag, &some(&all[20..]), "after");
    assert!(!streamlag.metrics().contains(&labels(all[0])));
    assert_eq!(connections(), before, "the connections stay");
}

#[test]
fn more_masters_than_connections_are_an_error_that_says_so() {
    let cluster = Cluster::start(&servers()[0], &[]);
    let streamlag = watch(&cluster.url(), &["--redis.max-connections", "3"]);
    let line = eventually("it says so", || streamlag.log_lines("poll failed").pop());
    assert!(line.contains("3 masters take 4 connections, and --redis.max-connections allows 3"), "{line}");

    // Nor does a node that is taken for all of Redis only say what it says.
    let stream = "events:elsewhere";
    let others = &cluster.nodes[(cluster.node_of(stream) + 1) % MASTERS];
    let streamlag = crate::common::streamlag(&["--redis.url", &others.url_of_everybody(), "--streams", stream]);
    let line = eventually("it says so", || streamlag.log_lines("stream read failed").pop());
    assert!(line.contains("MOVED ") && line.contains(": this Redis is a node of a cluster; see redis.mode"), "{line}");
}

/// A Valkey server from 9.0 on: its clusters may have several databases.
fn may_have_databases(server: &Path) -> bool {
    let output = std::process::Command::new(server).arg("--version").output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains("Valkey") && grants::version(server) >= (9, 0)
}

#[test]
fn another_database_is_sampled_where_the_cluster_has_several_and_named_where_not() {
    for server in servers() {
        let several = may_have_databases(&server);
        let options: &[&str] = if several { &["--cluster-databases", "16"] } else { &[] };
        let nodes = cluster::two_masters(&server, options);
        let url = |db: u8| format!("redis://127.0.0.1:{}/{db}", nodes[0].port);
        let streams: Vec<String> = (0..8).map(|n| format!("events:{n}")).collect();
        let watch = |db| watch_these(&url(db), &streams.join(","), &["--groups", GROUP]).ready();
        if !several {
            let streamlag = watch(3);
            let said = eventually("it is said", || streamlag.log_lines("poll failed").pop());
            assert!(said.contains("database 3 cannot be selected: SELECT is not allowed in cluster mode"), "{said}");
            assert_eq!(streamlag.metric("streamlag_redis_up"), Some(0.0));
            continue;
        }
        let mut lags = BTreeMap::new();
        for (n, stream) in streams.iter().enumerate() {
            let node = nodes.iter().find(|node| owns(node, stream)).unwrap();
            let mut connection = node.connection();
            let mut run = |words: &str| {
                let words: Vec<&str> = words.split(' ').collect();
                redis::cmd(words[0]).arg(&words[1..]).exec(&mut connection).unwrap();
            };
            for (db, entries) in [(0, 40 + n), (3, 20 + n)] {
                run(&format!("SELECT {db}"));
                (0..entries).for_each(|_| run(&format!("XADD {stream} * n 1")));
                run(&format!("XGROUP CREATE {stream} {GROUP} 0"));
            }
            lags.insert(stream.clone(), 20 + n as u64);
        }
        assert!(nodes.iter().all(|node| streams.iter().any(|stream| owns(node, stream))));
        let streamlag = watch(3);
        all_are_exact(&streamlag, &lags, "in database 3");
        let first: BTreeMap<String, u64> = lags.iter().map(|(stream, lag)| (stream.clone(), lag + 20)).collect();
        all_are_exact(&watch(0), &first, "in database 0");
        // A database that it does not have.
        let beyond = watch(16);
        let said = eventually("it is said", || beyond.log_lines("poll failed").pop());
        assert!(said.contains("database 16 cannot be selected: DB index is out of range"), "{said}");
    }
}
