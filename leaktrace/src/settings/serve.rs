//! What the flags of `serve` mean.

use core::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};

use super::trace::TraceSettings;
use crate::cli::{FormatArg, MetricArg, OutputArgs, ReportArgs, ServeArgs, TraceArgs};
use crate::settings::process_id;

/// A trace that is served, ready to be run.
#[derive(Debug)]
pub struct ServeSettings {
    /// The process.
    pub pid: u32,
    /// Where requests are answered.
    pub listen: SocketAddr,
    /// How the process is traced.
    pub trace: TraceSettings,
}

impl ServeSettings {
    /// Checks the flags and gives them meaning.
    pub fn new(args: ServeArgs) -> Result<Self> {
        Ok(Self {
            pid: process_id(args.pid)?,
            listen: address(&args.listen)?,
            trace: TraceSettings::new(trace(args))?,
        })
    }
}

/// The trace that serves: it reports to nobody but those who ask.
fn trace(args: ServeArgs) -> TraceArgs {
    TraceArgs {
        go_mem_profile_rate: None,
        reach: false,
        pid: Some(args.pid),
        duration: None,
        interval: "10s".to_owned(),
        max_live: args.max_live,
        max_stacks: args.max_stacks,
        no_hold: false,
        attach_with: args.attach_with,
        verbose: args.verbose,
        output: OutputArgs {
            report: ReportArgs {
                output: Vec::new(),
                format: FormatArg::Text,
                metric: MetricArg::LiveBytes,
                top: 10,
                min_bytes: "0".to_owned(),
            },
            min_age: args.min_age,
        },
        program: Vec::new(),
    }
}

/// `127.0.0.1:6060`, `[::1]:6060`, `localhost:6060`.
fn address(text: &str) -> Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        bail!("--listen {text} is no address: write it with a port, as in 127.0.0.1:6060");
    };
    match (host, port.parse::<u16>()) {
        ("localhost", Ok(port)) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        ("", Ok(port)) => bail!(
            "--listen {text} does not say on which address: 127.0.0.1:{port} is for this machine alone, 0.0.0.0:{port} \
             for everybody"
        ),
        (_, Ok(_)) => {
            bail!("--listen {text}: {host} is no address; write a number, as in 127.0.0.1:6060 or [::1]:6060")
        }
        (_, Err(_)) => bail!("--listen {text}: {port} is no port; write a number from 0 (any that is free) to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_people_write_them() {
        for (text, expected) in [
            ("127.0.0.1:6060", "127.0.0.1:6060"),
            ("localhost:0", "127.0.0.1:0"),
            ("[::1]:80", "[::1]:80"),
            ("0.0.0.0:1", "0.0.0.0:1"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected);
        }
        for wrong in [
            "",
            "6060",
            ":6060",
            "example.com:6060",
            "127.0.0.1",
            "127.0.0.1:x",
            "127.0.0.1:65536",
            "::1:6060:",
        ] {
            let said = address(wrong).unwrap_err().to_string();
            assert!(
                said.contains(&format!("--listen {wrong}")) && !said.contains('\n'),
                "{said}"
            );
        }
        assert!(address(":7").unwrap_err().to_string().contains("127.0.0.1:7"));
    }
}
