//! A fault on purpose in a real process, named by `PELTON_SABOTAGE`: tests/verify builds the broker once more with it. Not part
//! of the broker that anybody runs.

use pelton_reactor::ClusterConfig;
use pelton_shard::cluster::switches;

use crate::failure::Failure;

/// Switches on what the environment names.
pub fn switch(config: &mut ClusterConfig) -> Result<(), Failure> {
    let Ok(name) = std::env::var("PELTON_SABOTAGE") else { return Ok(()) };
    let all = switches();
    let Some((name, set)) = all.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Failure::usage(format!("PELTON_SABOTAGE={name}: there are {}", names.join(", "))));
    };
    eprintln!("this broker does wrong on purpose: {name}");
    set(config);
    Ok(())
}
