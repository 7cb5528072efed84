use rejoin_lab::Cluster;
fn main() -> anyhow::Result<()> {
    let c = Cluster::builder().nodes(2).method("rsync").mysqld("log_warnings=2").build()?;
    let t = std::time::Instant::now();
    eprintln!("boot {:?}", c.node(1).bootstrap()?);
    c.node(2).wipe()?;
    eprintln!("join {:?}", c.node(2).join()?);
    eprintln!("{}", c.node(2).log_text());
    eprintln!("{:?}", c.node(2).busy_ports());
    c.node(2).kill();
    eprintln!("{:?} {:?}", c.node(2).recover_position()?, c.node(2).grastate()?);
    c.node(2).remove_grastate()?;
    eprintln!("join {:?}", c.node(2).join()?);
    c.node(2).kill();
    c.node(2).remove_grastate()?;
    eprintln!("join {:?}", c.node(2).join()?);
    eprintln!("total {:?}", t.elapsed());
    Ok(())
}
