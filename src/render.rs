//! From what is known to what is served: the metrics page and the API's JSON. Pure.

pub mod api;
pub mod collectors;
pub mod exposition;
pub mod landing;
pub mod lines;
pub mod logical;
pub mod names;
pub mod page;
pub mod part;
pub mod targets;
mod whole;
