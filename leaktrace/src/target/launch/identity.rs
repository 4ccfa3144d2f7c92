//! Who called sudo: whom the command runs as when leaktrace had to be root.

use std::ffi::{CString, OsStr, OsString};
use std::str::FromStr;

use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::LaunchError;

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub user: Uid,
    pub group: Gid,
    pub groups: Vec<Gid>,
    /// What the environment says of the user.
    pub variables: Vec<(&'static str, OsString)>,
}

/// What sudo sets, and a command that does not run as root should not see.
pub(super) const SUDO_VARIABLES: [&str; 4] = ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"];

/// The user named by the variables that sudo sets; none when there are none, or it is root.
pub(super) fn caller(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Identity>, LaunchError> {
    let Some(user) = variable("SUDO_UID") else {
        return Ok(None);
    };
    let user = Uid::from_raw(number("SUDO_UID", Some(&user))?);
    let group = Gid::from_raw(number("SUDO_GID", variable("SUDO_GID").as_deref())?);
    let name = variable("SUDO_USER").ok_or_else(|| LaunchError::Caller("SUDO_USER is not set".to_owned()))?;
    if user.is_root() {
        return Ok(None);
    }
    let name_bytes =
        CString::new(name.as_encoded_bytes()).map_err(|_| LaunchError::Caller("SUDO_USER is not a name".to_owned()))?;
    let groups = getgrouplist(&name_bytes, group)
        .map_err(|error| LaunchError::Caller(format!("the groups of {} cannot be read: {error}", name.display())))?;
    Ok(Some(Identity {
        user,
        group,
        groups,
        variables: variables(user, name),
    }))
}

fn number(name: &str, value: Option<&OsStr>) -> Result<u32, LaunchError> {
    let value = value.ok_or_else(|| LaunchError::Caller(format!("{name} is not set")))?;
    let parsed = value.to_str().and_then(|text| u32::from_str(text).ok());
    // All ones means "do not change" to the kernel.
    let parsed = parsed.filter(|&number| number != u32::MAX);
    parsed.ok_or_else(|| {
        LaunchError::Caller(format!(
            "{name} is '{}', not a number of a user or group",
            value.display()
        ))
    })
}

/// As a login would set them: sudo's are root's. A user that the system does not know keeps the rest as it is.
fn variables(user: Uid, name: OsString) -> Vec<(&'static str, OsString)> {
    let mut variables = vec![("USER", name.clone()), ("LOGNAME", name)];
    if let Ok(Some(entry)) = User::from_uid(user) {
        variables.push(("HOME", entry.dir.into_os_string()));
        variables.push(("SHELL", entry.shell.into_os_string()));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller_with(variables: &[(&str, &str)]) -> Result<Option<Identity>, String> {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        caller(find).map_err(|error| error.to_string())
    }

    #[test]
    fn nobody_called_sudo() {
        assert_eq!(caller_with(&[]), Ok(None));
        assert_eq!(
            caller_with(&[("SUDO_UID", "0"), ("SUDO_GID", "0"), ("SUDO_USER", "root")]),
            Ok(None)
        );
    }

    #[test]
    fn the_caller_with_groups_and_home() {
        let Ok(Some(nobody)) = User::from_name("nobody") else {
            eprintln!("skipped: no user nobody");
            return;
        };
        let (user, group) = (nobody.uid.to_string(), nobody.gid.to_string());
        let variables = [
            ("SUDO_UID", user.as_str()),
            ("SUDO_GID", &group),
            ("SUDO_USER", "nobody"),
        ];
        let identity = caller_with(&variables).unwrap().unwrap();
        assert_eq!((identity.user, identity.group), (nobody.uid, nobody.gid));
        assert!(identity.groups.contains(&nobody.gid) && !identity.groups.contains(&Gid::from_raw(0)));
        assert!(identity.variables.contains(&("HOME", nobody.dir.into_os_string())));
    }

    #[test]
    fn never_root_by_mistake() {
        let error = |variables: &[(&str, &str)]| caller_with(variables).unwrap_err();
        assert!(error(&[("SUDO_UID", "1000")]).contains("SUDO_GID is not set"));
        assert!(error(&[("SUDO_UID", "1000"), ("SUDO_GID", "1000")]).contains("SUDO_USER is not set"));
        for wrong in ["", "x", "-1", "4294967295", "4294967296", "1000 "] {
            let message = error(&[("SUDO_UID", wrong), ("SUDO_GID", "1000"), ("SUDO_USER", "u")]);
            assert!(message.contains(&format!("SUDO_UID is '{wrong}'")), "{message}");
        }
    }
}
