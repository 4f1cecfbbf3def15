//! What streamlag does to others: notifies receivers of incidents, and carries out remediation plans.

pub mod notify;
pub mod remediate;
