//! KEDA and the horizontal pod autoscaler, as far as they decide by one external metric.
//!
//! From their code: KEDA 2.20 (`pkg/scaling/executor/scale_scaledobjects.go`), Kubernetes 1.36
//! (`pkg/controller/podautoscaler/horizontal.go`, `replica_calculator.go`).

use std::collections::VecDeque;

use super::world::MAX_REPLICAS;

/// KEDA's `pollingInterval`.
const POLLING_SECONDS: u64 = 30;

/// KEDA's `cooldownPeriod`.
const COOLDOWN_SECONDS: u64 = 300;

/// `--horizontal-pod-autoscaler-sync-period`.
const SYNC_SECONDS: u64 = 15;

/// `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

/// `behavior.scaleDown.stabilizationWindowSeconds`.
const STABILIZATION_SECONDS: u64 = 300;

/// `behavior.scaleUp.policies`: four pods or twice as many per 15 s, whichever is more.
const PODS_PER_PERIOD: u64 = 4;

/// A scaler answers with a value, or with an error.
pub(crate) type Answer = Option<f64>;

#[derive(Default)]
pub(crate) struct Autoscaler {
    last_active: Option<u64>,
    recommendations: VecDeque<(u64, u64)>,
}

impl Autoscaler {
    /// How many replicas there should be in this second; `ask` asks the scaler.
    pub(crate) fn decide(&mut self, now: u64, replicas: u64, target: f64, mut ask: impl FnMut() -> Answer) -> u64 {
        let mut wanted = replicas;
        if now.is_multiple_of(POLLING_SECONDS) {
            wanted = self.activate(now, wanted, ask());
        }
        // Without replicas the autoscaler is off.
        if now.is_multiple_of(SYNC_SECONDS) && wanted > 0 {
            wanted = self.sync(now, wanted, target, ask());
        }
        wanted
    }

    /// KEDA's part: between none and one. An error changes nothing.
    fn activate(&mut self, now: u64, replicas: u64, answer: Answer) -> u64 {
        match answer {
            Some(value) if value > 0.0 => {
                self.last_active = Some(now);
                replicas.max(1)
            }
            Some(_) if self.last_active.is_none_or(|at| now >= at + COOLDOWN_SECONDS) => {
                self.recommendations.clear();
                0
            }
            Some(_) | None => replicas,
        }
    }

    /// The autoscaler's part: between one and the most.
    fn sync(&mut self, now: u64, replicas: u64, target: f64, answer: Answer) -> u64 {
        let Some(value) = answer else { return replicas };
        let ratio = value / (target * replicas as f64);
        let raw = if (ratio - 1.0).abs() <= TOLERANCE { replicas } else { (value / target).ceil() as u64 };
        self.recommendations.push_back((now, raw));
        while self.recommendations.front().is_some_and(|(at, _)| at + STABILIZATION_SECONDS < now) {
            self.recommendations.pop_front();
        }
        let highest = self.recommendations.iter().map(|(_, wanted)| *wanted).max().unwrap_or(raw);
        // Down only as far as every recommendation of the window goes; up at once.
        let stable = if raw < replicas { highest.min(replicas) } else { raw };
        let most = (replicas + PODS_PER_PERIOD).max(replicas * 2);
        stable.clamp(1, MAX_REPLICAS.min(most))
    }
}
