//! What fails around the program: Redis, its replies, the network and the machine.

pub mod host;
mod network;
mod poll;
mod redis;
mod replies;
