//! What streamlag does beside showing: it tells of incidents.

pub mod notify;
