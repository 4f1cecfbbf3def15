//! Makes plans from snapshots, and ends them once what they rest on has changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::{Action, PLAN_LIFETIME, Plan, PlanEvidence, PlanSubject, RemediationMode, RemediationRule};
use crate::analysis::group_state::GroupState;
use crate::analysis::snapshot::{GroupSnapshot, Presence, PresentGroup, StreamFacts, StreamSnapshot};
use crate::model::text::hex;
use crate::model::{ConsumerName, EntryId, GroupName, StreamKey, TargetName};

/// Plans of a target at a time: more are not read by people.
const MAX_PLANS: usize = 1000;

/// How long a group counts as one whose applications claim by themselves after they were seen to.
const CLAIMS_REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// New plans within [`STORM_WINDOW`] that are a storm: more is wrong than a few consumers.
const STORM_PLANS: usize = 10;

/// Over what time new plans are counted.
const STORM_WINDOW: Duration = Duration::from_secs(60);

/// How long after a storm nothing is done without a person.
const COOLDOWN: Duration = Duration::from_secs(10 * 60);

/// Samples after an act that may have been taken before it, or be the first after it: one was not looked at yet, one was on its way.
const SAMPLES_AFTER_ACT: u8 = 3;

/// How long nothing is planned again that a person has rejected.
const REJECTED_FOR: Duration = Duration::from_secs(60 * 60);

/// How long nothing is planned again that a script has refused: it sees what samples do not, such as entries without payload.
/// Twice as long after each further refusal, up to [`MAX_REFUSED_FOR`].
const REFUSED_FOR: Duration = Duration::from_secs(60);
const MAX_REFUSED_FOR: Duration = Duration::from_secs(60 * 60);

/// Bytes of a plan's id.
const ID_BYTES: usize = 8;

type GroupKey = (StreamKey, GroupName);
type What = (Action, String);

/// Why a plan ended without having been carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The plan.
    pub plan: Plan,
    /// Whether its time was over; otherwise what it rests on has changed.
    pub expired: bool,
}

/// Plans of one target.
#[derive(Debug)]
pub struct Planner {
    target: TargetName,
    rules: Arc<[RemediationRule]>,
    groups: BTreeMap<GroupKey, GroupMemory>,
    plans: BTreeMap<(GroupKey, What), Plan>,
    /// What is not planned again for a while, at most [`MAX_PLANS`].
    pauses: BTreeMap<(GroupKey, What), Pause>,
    /// When the newest plans were made.
    newest: VecDeque<SystemTime>,
    storm_until: Option<SystemTime>,
}

/// What was seen of a group before.
#[derive(Debug, Default)]
struct GroupMemory {
    /// The server's clock at the newest sample.
    now_ms: u64,
    cursor: EntryId,
    consumers: BTreeMap<ConsumerName, (u64, u64)>,
    oldest: Option<(EntryId, Option<ConsumerName>, u64)>,
    /// When its applications were last seen to claim.
    claimed: Option<SystemTime>,
    sightings: BTreeMap<What, Sighting>,
    /// Samples from now on in which our own act may show.
    own_acts: u8,
    /// Pending entries without payload that scripts have seen. Samples tell only of those before the first entry of the stream.
    ghosts_met: u64,
}

/// Why and until when something is not planned again.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: SystemTime,
    /// How often in a row a script has refused it.
    refusals: u32,
}

/// Something that a plan may be for.
#[derive(Debug)]
struct Sighting {
    first: SystemTime,
    /// The server's clock then.
    now_ms: u64,
    subject: PlanSubject,
    /// Whether a later sample has shown the same.
    again: bool,
}

impl Planner {
    /// No plans yet.
    #[must_use]
    pub fn new(target: TargetName, rules: Arc<[RemediationRule]>) -> Self {
        Self {
            target,
            rules,
            groups: BTreeMap::new(),
            plans: BTreeMap::new(),
            pauses: BTreeMap::new(),
            newest: VecDeque::new(),
            storm_until: None,
        }
    }

    /// Goes by these rules from now on. What is known of groups, what was rejected and the cooldown stay, and plans whose rule is the same
    /// stay where `keeps` says so; those that have ended.
    pub fn reconfigure(&mut self, rules: Arc<[RemediationRule]>, keeps: impl Fn(&Plan) -> bool) -> Vec<Ended> {
        let before = std::mem::replace(&mut self.rules, rules);
        let (rules, target) = (Arc::clone(&self.rules), &self.target);
        let over = self.plans.extract_if(.., |((stream, group), _), plan| {
            let of = |rules: &[RemediationRule]| rules.iter().find(|rule| rule.matches(target, stream, group)).cloned();
            let (then, now) = (of(&before), of(&rules));
            plan.hook = now.as_ref().and_then(|rule| rule.hook);
            let is_same = match (then, now) {
                // Where its webhook stands in the list is no part of a rule.
                (Some(then), Some(now)) => {
                    RemediationRule { hook: None, ..then } == RemediationRule { hook: None, ..now }
                }
                _ => false,
            };
            !(is_same && keeps(plan))
        });
        over.map(|(_, plan)| Ended { plan, expired: false }).collect()
    }

    /// Forgets what was seen of groups: from now on, they are those of another Redis.
    pub fn forget_groups(&mut self) {
        self.groups.clear();
    }

    /// The plans that there are.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.plans.values()
    }

    /// The plan with this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Plan> {
        self.plans().find(|plan| plan.id == id)
    }

    /// Until when nothing is done without a person, because so much went wrong at once.
    #[must_use]
    pub fn storm_until(&self, now: SystemTime) -> Option<SystemTime> {
        self.storm_until.filter(|until| now < *until)
    }

    /// A plan was carried out, or could not be: what it was about is to be seen anew.
    pub fn acted(&mut self, plan: &Plan, may_have_changed: bool, now: SystemTime) {
        let place = (plan.stream.clone(), plan.group.clone());
        self.plans.remove(&(place.clone(), what(plan)));
        if let Some(memory) = self.groups.get_mut(&place) {
            memory.sightings.remove(&what(plan));
            if may_have_changed && plan.action.moves_entries() {
                // Who holds what changes by our own act, which is no claim of the application's.
                memory.own_acts = SAMPLES_AFTER_ACT;
            }
        }
        let key = (place, what(plan));
        if may_have_changed {
            self.pauses.remove(&key);
        }
        if plan.action == Action::Hook {
            // What it asked for takes time.
            self.pause(key, now, PLAN_LIFETIME, 0);
        }
    }

    /// The script has seen that it was not as planned: the same is not asked for again at once, and ever more rarely while that goes on.
    pub fn refused(&mut self, plan: &Plan, now: SystemTime) {
        let key = ((plan.stream.clone(), plan.group.clone()), what(plan));
        let refusals = self.pauses.get(&key).map_or(0, |pause| pause.refusals);
        let time = REFUSED_FOR.saturating_mul(2_u32.saturating_pow(refusals)).min(MAX_REFUSED_FOR);
        self.pause(key, now, time, refusals.saturating_add(1));
    }

    /// The script of a plan, which was done or refused, has seen this many pending entries without payload and left them, and has changed
    /// this much: there is no other way to learn of entries that were deleted from within the stream.
    pub fn met_ghosts(&mut self, plan: &Plan, seen: u64, changed: u64) {
        let Some(memory) = self.groups.get_mut(&(plan.stream.clone(), plan.group.clone())) else { return };
        memory.ghosts_met = match plan.action {
            // It found fewer than there were thought to be: the application has dropped some.
            Action::DropGhosts if changed == 0 => 0,
            Action::DropGhosts => memory.ghosts_met.saturating_sub(changed),
            _ => memory.ghosts_met.max(seen),
        };
    }

    /// A person does not want it.
    pub fn reject(&mut self, plan: &Plan, now: SystemTime) {
        let key = ((plan.stream.clone(), plan.group.clone()), what(plan));
        self.plans.remove(&key);
        self.pause(key, now, REJECTED_FOR, 0);
    }

    fn pause(&mut self, key: (GroupKey, What), now: SystemTime, time: Duration, refusals: u32) {
        // Refusals are remembered beyond the pause, to tell the next one from the first.
        self.pauses.retain(|_, pause| now < pause.until + MAX_REFUSED_FOR);
        if self.pauses.len() >= MAX_PLANS {
            self.pauses.retain(|_, pause| now < pause.until);
        }
        if self.pauses.len() < MAX_PLANS || self.pauses.contains_key(&key) {
            self.pauses.insert(key, Pause { until: now + time, refusals });
        }
    }

    /// Takes what the newest poll has shown; the plans that have ended. Streams that could not be read tell nothing.
    pub fn look(&mut self, streams: &[StreamSnapshot], now: SystemTime) -> Vec<Ended> {
        let mut ended = Vec::new();
        let mut there = BTreeSet::new();
        let rules = Arc::clone(&self.rules);
        for stream in streams {
            for group in &stream.groups {
                let place = (stream.key.clone(), group.name.clone());
                let rule = rules.iter().find(|rule| rule.matches(&self.target, &stream.key, &group.name));
                let Some(rule) = rule.filter(|rule| rule.mode != RemediationMode::Off) else { continue };
                if let (Err(_), _) | (_, Presence::Unknown) = (&stream.read, &group.presence) {
                    there.insert(place);
                    continue;
                }
                let (Ok(facts), Some(present)) = (&stream.read, group.present()) else { continue };
                there.insert(place.clone());
                self.group(place, facts, group, present, rule, now, &mut ended);
            }
        }
        self.groups.retain(|place, _| there.contains(place));
        for (_, plan) in self.plans.extract_if(.., |(place, _), _| !there.contains(place)) {
            ended.push(Ended { plan, expired: false });
        }
        ended.extend(self.expire(now));
        while self.newest.front().is_some_and(|at| *at + STORM_WINDOW < now) {
            self.newest.pop_front();
        }
        if self.newest.len() > STORM_PLANS {
            self.storm_until = Some(now + COOLDOWN);
            self.newest.clear();
        }
        ended
    }

    /// Ends the plans whose time is over.
    pub fn expire(&mut self, now: SystemTime) -> Vec<Ended> {
        let over = self.plans.extract_if(.., |_, plan| plan.expires <= now);
        over.map(|(_, plan)| Ended { plan, expired: true }).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "one sample of one group")]
    fn group(
        &mut self,
        place: GroupKey,
        facts: &StreamFacts,
        snapshot: &GroupSnapshot,
        group: &PresentGroup,
        rule: &RemediationRule,
        now: SystemTime,
        ended: &mut Vec<Ended>,
    ) {
        let Some(cursor) = group.last_delivered.filter(|_| place.0.is_whole() && snapshot.name.is_whole()) else {
            return;
        };
        let memory = self.groups.entry(place.clone()).or_default();
        if memory.now_ms == facts.now_ms {
            return;
        }
        if cursor < memory.cursor {
            // Set back, or made again: it is another group as far as plans go.
            *memory = GroupMemory::default();
        }
        memory.take(group, cursor, facts.now_ms, now);
        let claims = memory.claimed.is_some_and(|at| now < at + CLAIMS_REMEMBERED);
        let mut candidates = candidates(facts, group, rule, claims, memory.ghosts_met);
        if rule.dead_letter.as_ref().is_some_and(|to| to.stream == place.0) {
            // An entry would come back to where it was taken from.
            candidates.retain(|(action, _), _| *action != Action::DeadLetter);
        }
        memory.sightings.retain(|what, _| candidates.contains_key(what));
        for (what, subject) in &candidates {
            match memory.sightings.get_mut(what) {
                Some(seen) if seen.subject.still(subject) && !seen.is_of_before(subject, facts.now_ms) => {
                    // The same idle time is the same look at the consumer: a stream with large entries is not read each time.
                    seen.again |= is_later(&seen.subject, subject);
                }
                _ => {
                    let sighting =
                        Sighting { first: now, now_ms: facts.now_ms, subject: subject.clone(), again: false };
                    memory.sightings.insert(what.clone(), sighting);
                }
            }
        }
        let live = live(group);
        // All that there may be of this group: `Hook` is the last of the actions, and its subject has no name.
        let own = (place.clone(), (Action::DeleteIdleConsumers, String::new()))
            ..=(place.clone(), (Action::Hook, String::new()));
        for (_, plan) in self.plans.extract_if(own.clone(), |(_, what), plan| {
            // A plan rests on its two sightings.
            let seen = memory.sightings.get(what).filter(|seen| seen.first == plan.evidence.first_seen);
            let holds = seen.is_some() && candidates.get(what).is_some_and(|subject| plan.subject.still(subject));
            let taker_is_there = match &plan.subject {
                PlanSubject::Consumer { to: Some(to), .. } => live.contains(to),
                _ => true,
            };
            !(holds && taker_is_there)
        }) {
            ended.push(Ended { plan, expired: false });
        }
        let evidence = |first_seen| PlanEvidence {
            state: group.trend.verdict.state,
            lag: group.lag.point,
            pending: group.pending,
            last_delivered: cursor,
            consumers: group.members.as_ref().filter(|_| group.overflow.is_none()).map(|members| {
                let alive = members.iter().filter(|member| member.active == Some(true));
                (members.len() as u64, alive.count() as u64)
            }),
            first_seen,
        };
        // Whether most of the group is healthy is a question of now.
        for (_, plan) in self.plans.range_mut(own) {
            plan.evidence = evidence(plan.evidence.first_seen);
        }
        for (what, subject) in candidates {
            let key = (place.clone(), what);
            let Some(seen) = memory.sightings.get(&key.1).filter(|seen| seen.again) else { continue };
            let is_early = self.pauses.get(&key).is_some_and(|pause| now < pause.until);
            if is_early || self.plans.contains_key(&key) || self.plans.len() >= MAX_PLANS {
                continue;
            }
            let plan = Plan {
                id: id(&self.target, &key, now),
                target: self.target.clone(),
                stream: place.0.clone(),
                group: place.1.clone(),
                action: key.1.0,
                subject,
                evidence: evidence(seen.first),
                mode: rule.mode,
                entries: rule.entries(),
                budget: rule.budget,
                dead_letter: rule.dead_letter.clone(),
                hook: rule.hook,
                made_at: now,
                expires: now + PLAN_LIFETIME,
            };
            self.newest.push_back(now);
            self.plans.insert(key, plan);
        }
    }
}

impl Sighting {
    /// Whether this consumer was alive between this sighting and now: it was not idle all the time, so that it died twice.
    ///
    /// Clocks are not read at the very moment at which consumers are. As every idle time is as long as it takes to be dead at least, one
    /// that began anew differs by more than half of it.
    fn is_of_before(&self, now: &PlanSubject, now_ms: u64) -> bool {
        match (&self.subject, now) {
            (PlanSubject::Consumer { idle_ms, .. }, PlanSubject::Consumer { idle_ms: idle_now, .. })
                if idle_now != idle_ms =>
            {
                let elapsed = now_ms.saturating_sub(self.now_ms);
                idle_now.saturating_sub(*idle_ms).saturating_add(idle_ms / 2) < elapsed
            }
            _ => false,
        }
    }
}

impl GroupMemory {
    /// Notes a sample, and whether the applications claim by themselves: an entry's owner changes, its deliveries rise, or a consumer
    /// that does nothing holds less than before.
    fn take(&mut self, group: &PresentGroup, cursor: EntryId, now_ms: u64, now: SystemTime) {
        let oldest = group
            .oldest_pending
            .as_ref()
            .map(|oldest| (oldest.0, oldest.1.clone(), group.oldest_pending_deliveries.unwrap_or_default()));
        let claimed = match (&self.oldest, &oldest) {
            (Some((id, owner, deliveries)), Some((same, taken_by, again))) if id == same => {
                owner != taken_by || again > deliveries
            }
            _ => false,
        };
        let consumers: BTreeMap<ConsumerName, (u64, u64)> = group
            .members
            .iter()
            .flatten()
            // Others may acknowledge after they read.
            .filter(|member| member.active == Some(false))
            .filter_map(|member| Some((member.sample.name.clone(), (member.sample.idle_ms?, member.sample.pending?))))
            .collect();
        let taken = consumers.iter().any(|(name, (idle, pending))| {
            self.consumers.get(name).is_some_and(|(idle_then, held)| idle > idle_then && pending < held)
        });
        if self.own_acts > 0 {
            self.own_acts -= 1;
        } else if claimed || taken {
            self.claimed = Some(now);
        }
        (self.now_ms, self.cursor, self.consumers, self.oldest) = (now_ms, cursor, consumers, oldest);
    }
}

/// What something could be done about.
fn candidates(
    facts: &StreamFacts,
    group: &PresentGroup,
    rule: &RemediationRule,
    claims: bool,
    ghosts_met: u64,
) -> BTreeMap<What, PlanSubject> {
    let may = |action: Action| rule.actions.contains(&action);
    let mut found = Vec::new();
    let taker = taker(group);
    let mut dead_holding = 0;
    let members = group.members.iter().flatten().filter(|_| facts.idle_times_hold);
    for member in members.filter(|member| member.active == Some(false)) {
        let (Some(pending), Some(idle_ms)) = (member.sample.pending, member.sample.idle_ms) else { continue };
        dead_holding += u64::from(pending > 0);
        let name = member.sample.name.clone();
        if !name.is_whole() {
            continue;
        }
        if pending == 0 && may(Action::DeleteIdleConsumers) {
            found.push((Action::DeleteIdleConsumers, PlanSubject::Consumer { name, pending, idle_ms, to: None }));
        } else if pending > 0 && may(Action::Release) && !claims && taker.is_some() {
            found.push((Action::Release, PlanSubject::Consumer { name, pending, idle_ms, to: taker.clone() }));
        }
    }
    let ghosts = ghosts_met.min(group.pending.unwrap_or(u64::MAX)).max(group.ghost_pending.unwrap_or_default());
    if ghosts > 0 && may(Action::DropGhosts) {
        found.push((Action::DropGhosts, PlanSubject::Ghosts { count: ghosts }));
    }
    if let (Some((id, Some(owner))), Some(deliveries), Some(to)) =
        (&group.oldest_pending, group.oldest_pending_deliveries, &rule.dead_letter)
        && may(Action::DeadLetter)
        && deliveries >= to.deliveries
        && owner.is_whole()
        && facts.first.is_some_and(|first| *id >= first)
    {
        found.push((Action::DeadLetter, PlanSubject::Entry { id: *id, owner: owner.clone(), deliveries }));
    }
    let state = group.trend.verdict.state;
    let is_stuck = matches!(state, GroupState::Stopped | GroupState::Stalled | GroupState::AckStalled);
    if may(Action::Hook) && (is_stuck || dead_holding > 0) {
        found.push((Action::Hook, PlanSubject::Group { state, dead: dead_holding }));
    }
    found.into_iter().map(|(action, subject)| ((action, subject.key()), subject)).collect()
}

/// Consumers that are alive for certain.
fn live(group: &PresentGroup) -> BTreeSet<&ConsumerName> {
    let members = group.members.iter().flatten().filter(|member| member.active == Some(true));
    members.map(|member| &member.sample.name).collect()
}

/// Who takes over entries: the living consumer that holds least.
fn taker(group: &PresentGroup) -> Option<ConsumerName> {
    let members = group.members.iter().flatten();
    let alive = members.filter(|member| member.active == Some(true) && member.sample.name.is_whole());
    let least = alive.min_by_key(|member| (member.sample.pending.unwrap_or(u64::MAX), member.sample.name.clone()));
    least.map(|member| member.sample.name.clone())
}

fn is_later(before: &PlanSubject, now: &PlanSubject) -> bool {
    match (before, now) {
        (PlanSubject::Consumer { idle_ms, .. }, PlanSubject::Consumer { idle_ms: idle_now, .. }) => idle_now > idle_ms,
        _ => true,
    }
}

fn what(plan: &Plan) -> What {
    (plan.action, plan.subject.key())
}

fn id(target: &TargetName, ((stream, group), (action, subject)): &(GroupKey, What), now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut digest = Sha256::new();
    for part in [target.as_str().as_bytes(), stream.as_bytes(), group.as_bytes(), subject.as_bytes()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.update(action.as_str());
    digest.update(since.as_nanos().to_be_bytes());
    hex(&digest.finalize()[..ID_BYTES])
}
