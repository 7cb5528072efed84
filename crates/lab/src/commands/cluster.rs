//! `lab cluster`: nodes to play with.

use anyhow::Result;
use clap::Args;
use rejoin_lab::{Cluster, sample_schema};

/// What to start.
#[derive(Args)]
pub struct Options {
    /// How many nodes.
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// SST method.
    #[arg(long, default_value = "rejoin")]
    method: String,
    /// A line for `[mysqld]` of all nodes; may be given again.
    #[arg(long)]
    mysqld: Vec<String>,
    /// A line for `[sst]` of all nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
    /// Make one table of every kind on the first node before the others join.
    #[arg(long)]
    zoo: bool,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let builder = Cluster::builder().nodes(options.nodes).method(&options.method);
    let builder = options.mysqld.iter().fold(builder, |builder, line| builder.mysqld(line));
    let cluster = options.sst.iter().fold(builder, |builder, line| builder.sst(line)).build()?;
    for (i, node) in cluster.nodes().iter().enumerate() {
        let took = if i == 0 { node.bootstrap()? } else { node.wipe().and_then(|()| node.join())? };
        println!("{} Synced after {:.1} s", node.name(), took.as_secs_f64());
        println!("  mariadb -u root -S {}", node.socket().display());
        println!("  error log {}", node.error_log().display());
        if i == 0 && options.zoo {
            sample_schema::create(node)?;
        }
    }
    println!("Enter ends it.");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
