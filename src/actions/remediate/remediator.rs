//! The task that makes plans, and carries out those that are approved or may go without.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep};

use super::RemediationConfig;
use super::act::{ActOutcome, act};
use super::audit::{Audit, AuditError, AutoActs, past};
use super::hook;
use crate::analysis::remediation::{Action, MIN_HEALTHY_PERCENT, Plan, Planner, RemediationMode};
use crate::model::TargetName;
use crate::model::text::rfc3339;
use crate::store::latest::Reader;
use crate::store::remediation::{
    AUTO, Board, Clerk, Decided, Decision, Ending, MAX_PAST, OpenPlan, PastPlan, Undecided,
};
use crate::sys::own_metrics::SelfMetrics;

/// How often it is looked for a new sample.
const LOOKS: Duration = Duration::from_millis(500);

/// What there is to see, and what may be done about it: of one moment.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What may be done.
    pub config: Arc<RemediationConfig>,
    /// Where snapshots are, by target.
    pub targets: Vec<(TargetName, Reader)>,
}

/// Makes plans and carries them out.
pub struct Remediator {
    watched: watch::Receiver<Watched>,
    clerk: Clerk,
    metrics: SelfMetrics,
    ledger: Arc<Mutex<Ledger>>,
    planners: BTreeMap<TargetName, Watcher>,
    /// By plan.
    approvals: BTreeMap<String, Vec<String>>,
    past: VecDeque<PastPlan>,
    /// Plans for which the budget does not last, and what is said of it.
    over_budget: BTreeMap<String, String>,
    /// What the log said last of why nothing is done.
    said: Option<String>,
    /// What the log said last of why a plan could not be carried out.
    trouble: Option<String>,
}

/// The record of acts.
#[derive(Default)]
struct Ledger {
    /// The file, once something was to be written.
    open: Option<Audit>,
    acts: AutoActs,
}

struct Watcher {
    planner: Planner,
    /// When the newest sample was taken that it has seen.
    seen: Option<Instant>,
    /// Whether Redis answered the newest poll.
    is_up: bool,
}

impl Remediator {
    /// One that goes by the newest configuration.
    #[must_use]
    pub fn new(watched: watch::Receiver<Watched>, clerk: Clerk, metrics: SelfMetrics) -> Self {
        Self {
            watched,
            clerk,
            metrics,
            ledger: Arc::default(),
            planners: BTreeMap::new(),
            approvals: BTreeMap::new(),
            past: VecDeque::new(),
            over_budget: BTreeMap::new(),
            said: None,
            trouble: None,
        }
    }

    /// Never ends.
    pub async fn run(mut self) {
        let mut before: Option<Watched> = None;
        loop {
            let watched = self.watched.borrow_and_update().clone();
            let names = |watched: &Watched| watched.targets.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            let is_same = before
                .as_ref()
                .is_some_and(|before| before.config == watched.config && names(before) == names(&watched));
            if !is_same {
                let before = before.map(|before| before.config).unwrap_or_default();
                self.begin(&before, &watched);
                self.recall(&watched.config).await;
            }
            // It may have been moved away, and is to be made again.
            self.ledger.lock().unwrap_or_else(PoisonError::into_inner).open = None;
            self.go_by(&watched).await;
            before = Some(watched);
        }
    }

    /// Ends plans that were made by other rules. What was rejected, the cooldown and what was done for the budget stay.
    fn begin(&mut self, before: &RemediationConfig, watched: &Watched) {
        let config = &watched.config;
        self.approvals.clear();
        self.over_budget.clear();
        let mut planners = std::mem::take(&mut self.planners);
        for (name, _) in &watched.targets {
            let mut watcher = planners.remove(name).unwrap_or_else(|| Watcher {
                planner: Planner::new(name.clone(), Arc::default()),
                seen: None,
                is_up: false,
            });
            let is_same_redis = before.doers.get(name) == config.doers.get(name);
            if !is_same_redis {
                watcher.planner.forget_groups();
            }
            let keeps = |plan: &Plan| is_same_redis && (plan.action != Action::Hook || before.hooks == config.hooks);
            for ended in watcher.planner.reconfigure(Arc::clone(&config.rules), keeps) {
                self.end(
                    ended.plan,
                    ActOutcome::of(Ending::Void, "the configuration has changed".to_owned()),
                    Vec::new(),
                );
            }
            self.planners.insert(name.clone(), watcher);
        }
        if !config.is_on() {
            self.past.clear();
            self.clerk.show(Board::default());
            return;
        }
        for action in Action::ALL {
            let is_done = |mode| matches!(mode, RemediationMode::Approve | RemediationMode::Auto);
            if config.rules.iter().any(|rule| is_done(rule.mode) && rule.actions.contains(&action)) {
                self.metrics.remediates(action.as_str(), &Ending::OF_ACTS.map(Ending::as_str));
            }
        }
    }

    /// Shows how plans ended before a restart, as far as that is on record.
    async fn recall(&mut self, config: &RemediationConfig) {
        let Some(path) = config.audit_file.clone().filter(|_| config.is_on() && self.past.is_empty()) else { return };
        match spawn_blocking(move || past(&path)).await {
            Ok(Ok(past)) => self.past = past,
            Ok(Err(error)) => {
                tracing::warn!(%error, "audit file not read: how plans ended before the start is not shown")
            }
            Err(_) => {}
        }
    }

    /// Until there is another configuration.
    async fn go_by(&mut self, watched: &Watched) {
        let is_on = watched.config.is_on();
        let mut changes = self.watched.clone();
        loop {
            if is_on {
                self.look(watched);
                let stopped = self.stopped(&watched.config).await;
                if stopped.is_none() {
                    self.act_alone(&watched.config).await;
                }
                self.show(&watched.config, stopped);
            }
            let wait = async { if is_on { sleep(LOOKS).await } else { std::future::pending().await } };
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_ok() {
                        return;
                    }
                    std::future::pending::<()>().await;
                }
                decision = self.clerk.next() => self.decide(&watched.config, decision).await,
                () = wait => {}
            }
        }
    }

    fn look(&mut self, watched: &Watched) {
        let now = SystemTime::now();
        let mut ended = Vec::new();
        for (name, reader) in &watched.targets {
            let Some(watcher) = self.planners.get_mut(name) else { continue };
            let published = reader.newest();
            watcher.is_up = published.view.redis_up();
            let streams = if watcher.is_up && published.sampled != watcher.seen {
                watcher.seen = published.sampled;
                Some(&published.view.streams)
            } else {
                None
            };
            match streams {
                Some(streams) => ended.extend(watcher.planner.look(streams, now)),
                None => ended.extend(watcher.planner.expire(now)),
            }
            for plan in watcher.planner.plans().filter(|plan| plan.made_at == now) {
                let (plan_id, mode, action) = (&plan.id, plan.mode.as_str(), plan.action.as_str());
                tracing::info!(plan_id, mode, action, what = plan.what(), why = plan.why(), "remediation plan made");
            }
        }
        for ended in ended {
            let ending = if ended.expired { Ending::Expired } else { Ending::Void };
            let detail = if ended.expired { "nobody approved it in time" } else { "what it rested on has changed" };
            self.end(ended.plan, ActOutcome::of(ending, detail.to_owned()), Vec::new());
        }
    }

    /// Why nothing is carried out.
    async fn stopped(&mut self, config: &Arc<RemediationConfig>) -> Option<String> {
        let switch = config.kill_switch_file.clone()?;
        let is_there = spawn_blocking(move || is_switched_off(&switch)).await.unwrap_or(true);
        let stopped = is_there.then(|| "the kill switch file is there".to_owned());
        if stopped != self.said {
            match &stopped {
                Some(why) => tracing::warn!(why, "remediation stopped"),
                None => tracing::info!("remediation goes on"),
            }
            self.said.clone_from(&stopped);
        }
        stopped
    }

    /// Why a plan is not carried out without a person.
    fn holds_back(&self, config: &RemediationConfig, plan: &Plan, now: SystemTime) -> Option<String> {
        let watcher = self.planners.get(&plan.target);
        match plan.mode {
            RemediationMode::Off | RemediationMode::Plan => Some("its mode is plan: it is only shown".to_owned()),
            RemediationMode::Approve if config.two_person => {
                Some("approval by two tokens with scope:remediate".to_owned())
            }
            RemediationMode::Approve => Some("approval by a token with scope:remediate".to_owned()),
            RemediationMode::Auto if watcher.is_none_or(|watcher| !watcher.is_up) => {
                Some("Redis did not answer the newest poll".to_owned())
            }
            RemediationMode::Auto if !plan.is_group_healthy() => Some(format!(
                "approval: fewer than {MIN_HEALTHY_PERCENT} % of the group's consumers are alive, so the watcher may be wrong"
            )),
            RemediationMode::Auto if watcher.and_then(|watcher| watcher.planner.storm_until(now)).is_some() => {
                Some("approval, or the end of the cooldown after many plans at once".to_owned())
            }
            RemediationMode::Auto => None,
        }
    }

    /// Carries out one plan that needs nobody, if there is one.
    async fn act_alone(&mut self, config: &Arc<RemediationConfig>) {
        let now = SystemTime::now();
        let all = self.planners.values().flat_map(|watcher| watcher.planner.plans());
        let alone: Vec<Plan> = all.filter(|plan| self.holds_back(config, plan, now).is_none()).cloned().collect();
        for plan in alone {
            let id = plan.id.clone();
            match self.carry_out(config, plan, vec![AUTO.to_owned()]).await {
                Ok(_) => return,
                Err(why) => {
                    let is_of_the_plan = why.is_of_the_plan();
                    self.over_budget.insert(id, why.to_string());
                    if !is_of_the_plan {
                        // The next would open the audit file again, in vain.
                        return;
                    }
                }
            }
        }
    }

    async fn decide(&mut self, config: &Arc<RemediationConfig>, decision: Decision) {
        let Decision { id, approve, by, answer } = decision;
        let now = SystemTime::now();
        let found = self.planners.values().find_map(|watcher| watcher.planner.find(&id)).cloned();
        let outcome = match found.filter(|plan| now < plan.expires) {
            None => Err(Undecided::Gone),
            Some(plan) if !approve => {
                self.reject(config, plan, by, now).await;
                Ok(Decided::Ended { ending: Ending::Rejected, changed: 0, detail: String::new() })
            }
            Some(plan) if matches!(plan.mode, RemediationMode::Off | RemediationMode::Plan) => {
                Err(Undecided::NotApprovable)
            }
            Some(plan) => {
                let mut approvals = self.approvals.get(&id).cloned().unwrap_or_default();
                if approvals.contains(&by) {
                    Err(Undecided::SameToken)
                } else {
                    approvals.push(by);
                    if config.two_person && approvals.len() < 2 {
                        self.approvals.insert(id, approvals);
                        Ok(Decided::OneMore)
                    } else {
                        let carried_out = self.carry_out(config, plan, approvals).await;
                        carried_out
                            .map(|ActOutcome { ending, changed, detail, .. }| Decided::Ended {
                                ending,
                                changed,
                                detail,
                            })
                            .map_err(|why| Undecided::Stopped(why.to_string()))
                    }
                }
            }
        };
        let stopped = self.stopped(config).await;
        self.show(config, stopped);
        // Who asked may have gone.
        let _ = answer.send(outcome);
    }

    async fn reject(&mut self, config: &Arc<RemediationConfig>, plan: Plan, by: String, now: SystemTime) {
        if let Some(watcher) = self.planners.get_mut(&plan.target) {
            watcher.planner.reject(&plan, now);
        }
        let (ledger, path, of, who) = (Arc::clone(&self.ledger), config.audit_file.clone(), plan.clone(), by.clone());
        let noted = spawn_blocking(move || match path {
            Some(path) => with(&ledger, &path, |audit, _| audit.rejected(&of, &who, now)),
            None => Ok(()),
        });
        if let Ok(Err(error)) = noted.await {
            tracing::error!(%error, "rejected plan not recorded");
        }
        self.end(plan, ActOutcome::of(Ending::Rejected, String::new()), vec![by]);
    }

    /// Carries out a plan: intent, act, outcome.
    ///
    /// # Errors
    /// Why nothing was done, and the plan stays.
    async fn carry_out(
        &mut self,
        config: &Arc<RemediationConfig>,
        plan: Plan,
        by: Vec<String>,
    ) -> Result<ActOutcome, NotBegun> {
        let path = config.audit_file.clone().ok_or(NotBegun::NoAuditFile)?;
        let begun = {
            let (ledger, path, plan, by) = (Arc::clone(&self.ledger), path.clone(), plan.clone(), by.clone());
            let switch = config.kill_switch_file.clone();
            spawn_blocking(move || begin(&ledger, &path, switch.as_deref(), &plan, &by)).await
        };
        let begun = begun.unwrap_or_else(|error| Err(error.into()));
        let trouble = begun.as_ref().err().filter(|why| !why.is_of_the_plan()).map(ToString::to_string);
        if trouble != self.trouble {
            if let Some(error) = &trouble {
                tracing::error!(plan_id = plan.id, error, "remediation plans are not carried out");
            }
            self.trouble = trouble;
        }
        begun?;
        let outcome = match (plan.action, plan.hook.and_then(|hook| config.hooks.get(hook))) {
            (Action::Hook, Some(webhook)) => hook::call(webhook, config.ca.clone(), &plan, SystemTime::now()).await,
            (Action::Hook, None) => ActOutcome::of(Ending::Failed, "there is no webhook".to_owned()),
            _ => match config.doers.get(&plan.target).cloned() {
                Some(doer) => {
                    let plan = plan.clone();
                    let acted = spawn_blocking(move || act(&doer, &plan)).await;
                    acted.unwrap_or_else(|error| ActOutcome::of(Ending::Unknown, error.to_string()))
                }
                None => ActOutcome::of(Ending::Failed, "there is nobody to act at this target".to_owned()),
            },
        };
        let noted = {
            let (ledger, plan, outcome) = (Arc::clone(&self.ledger), plan.clone(), outcome.clone());
            let note = move || with(&ledger, &path, |audit, _| audit.outcome(&plan, &outcome, SystemTime::now()));
            spawn_blocking(note).await
        };
        if let Err(error) = noted.map_err(NotBegun::from).and_then(|noted| Ok(noted?)) {
            tracing::error!(plan_id = plan.id, %error, "outcome not recorded");
        }
        self.metrics.remediated(plan.action.as_str(), outcome.ending.as_str());
        if let Some(watcher) = self.planners.get_mut(&plan.target) {
            watcher.planner.acted(&plan, outcome.may_have_changed(), SystemTime::now());
            if outcome.ending == Ending::Refused {
                watcher.planner.refused(&plan, SystemTime::now());
            }
            if matches!(outcome.ending, Ending::Done | Ending::Refused) {
                watcher.planner.met_ghosts(&plan, outcome.ghosts, outcome.changed);
            }
        }
        self.end(plan, outcome.clone(), by);
        Ok(outcome)
    }

    /// A plan has ended like this.
    fn end(&mut self, plan: Plan, outcome: ActOutcome, by: Vec<String>) {
        self.approvals.remove(&plan.id);
        self.over_budget.remove(&plan.id);
        let (plan_id, action, ending) = (&plan.id, plan.action.as_str(), outcome.ending.as_str());
        let (what, changed, detail) = (plan.what(), outcome.changed, &outcome.detail);
        tracing::info!(plan_id, action, ending, by = by.join(","), what, changed, detail, "remediation plan ended");
        self.past.push_front(PastPlan {
            place: plan.place(),
            what,
            why: plan.why(),
            id: plan.id,
            action: plan.action,
            made_at: rfc3339(plan.made_at),
            ending: outcome.ending,
            at: rfc3339(SystemTime::now()),
            by,
            changed: outcome.changed,
            detail: outcome.detail,
        });
        self.past.truncate(MAX_PAST);
    }

    fn show(&self, config: &RemediationConfig, stopped: Option<String>) {
        let now = SystemTime::now();
        let all = self.planners.values().flat_map(|watcher| watcher.planner.plans());
        let open = |plan: &Plan| OpenPlan {
            approved_by: self.approvals.get(&plan.id).cloned().unwrap_or_default(),
            waits_for: self.holds_back(config, plan, now).or_else(|| self.over_budget.get(&plan.id).cloned()),
            plan: plan.clone(),
        };
        let board =
            Board { is_on: true, stopped, plans: all.map(open).collect(), past: self.past.iter().cloned().collect() };
        self.clerk.show(board);
    }
}

/// Whether the file of the kill switch is there. One that cannot be looked at counts as there.
fn is_switched_off(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

/// Why an act was not begun.
#[derive(Debug, thiserror::Error)]
enum NotBegun {
    #[error("there is no audit file")]
    NoAuditFile,
    #[error("the kill switch file is there")]
    SwitchedOff,
    #[error("the plan has expired")]
    Expired,
    #[error("the budget of {0} acts per hour is used up")]
    BudgetUsed(u64),
    #[error(
        "the budget of {0} acts per hour counts as used up: the end of the audit file that is read does not reach back an hour"
    )]
    BudgetUnknown(u64),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Interrupted(#[from] JoinError),
}

impl NotBegun {
    /// Whether other plans can be carried out.
    fn is_of_the_plan(&self) -> bool {
        matches!(self, Self::Expired | Self::BudgetUsed(_) | Self::BudgetUnknown(_))
    }
}

/// Everything that must hold just before an act, and its intent on disk.
fn begin(
    ledger: &Mutex<Ledger>,
    path: &Path,
    switch: Option<&Path>,
    plan: &Plan,
    by: &[String],
) -> Result<(), NotBegun> {
    if switch.is_some_and(is_switched_off) {
        return Err(NotBegun::SwitchedOff);
    }
    let now = SystemTime::now();
    if now >= plan.expires {
        return Err(NotBegun::Expired);
    }
    with(ledger, path, |audit, acts| {
        if by == [AUTO] {
            let budget = plan.budget.map_or(0, |budget| budget.acts_per_hour);
            match acts.within_an_hour(plan, now) {
                None => return Err(NotBegun::BudgetUnknown(budget)),
                Some(done) if done >= budget => return Err(NotBegun::BudgetUsed(budget)),
                Some(_) => {}
            }
        }
        Ok(audit.intent(plan, by, acts, now)?)
    })
}

/// Does something with the audit file, which stays open until a reload.
fn with<E: From<AuditError>>(
    ledger: &Mutex<Ledger>,
    path: &Path,
    act: impl FnOnce(&mut Audit, &mut AutoActs) -> Result<(), E>,
) -> Result<(), E> {
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let Ledger { open, acts } = &mut *ledger;
    let audit = match open {
        Some(audit) => audit,
        None => open.insert(Audit::open(path, acts, SystemTime::now())?),
    };
    act(audit, acts)
}
