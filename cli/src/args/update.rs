//! `update`.

use clap::Args;
use croft_api::container::Restart;

use super::LimitArgs;

#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    pub limits: LimitArgs,
    #[arg(help = "When it is started again: no, on-failure[:N], always, unless-stopped", long, value_name = "POLICY", value_parser = crate::config::restart)]
    pub restart: Option<Restart>,
    /// The containers' names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub names: Vec<String>,
}
