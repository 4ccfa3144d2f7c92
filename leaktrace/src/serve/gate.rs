//! Who is let in. A page of somebody's web site can have a browser on this machine send requests here under the site's
//! own name: on a loopback address, only names that nobody else can own are answered. Pure.

use core::net::{IpAddr, Ipv6Addr};

/// Whether a `Host` header names this machine itself: by an address, or as `localhost`.
pub(super) fn is_own_name(host: &str) -> bool {
    let name = without_port(host.trim());
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || is_address(&name)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // An address of many parts without brackets has no port.
        Some((name, _)) if name.contains(':') && !name.ends_with(']') => host,
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_address(name: &str) -> bool {
    let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bracketed {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<IpAddr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_can_own_are_not_ours() {
        for host in [
            "localhost",
            "LOCALHOST:6060",
            "127.0.0.1:6060",
            "127.0.0.1",
            "[::1]:6060",
            "[::1]",
            "::1",
            "a.localhost:1",
        ] {
            assert!(is_own_name(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:6060",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "[::1",
            "xlocalhost",
        ] {
            assert!(!is_own_name(host), "{host}");
        }
    }
}
