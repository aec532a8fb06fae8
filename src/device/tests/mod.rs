//! The room's rules on recorded machines.

mod identity;
mod in_use;
mod inventory;
mod machine;
mod refusals;
mod resolve;
mod stacks;
mod twins;
mod words;
