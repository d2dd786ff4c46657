//! Who a container runs as: `user`, `user:group`, `uid`, `uid:gid`, `user:gid`, `uid:group`, looked up in the image's own files.
//!
//! The files come from the image, so they are outside bytes: lines that do not parse are passed over, as every other reader does.

/// Numbers above this are refused: runc and the kernel's older interfaces take them for negative ones.
const MAX_ID: u32 = i32::MAX.unsigned_abs();

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResolvedUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
}

/// Resolves the text of `user`; empty is root. A group that is named replaces all groups of the user.
pub(crate) fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<ResolvedUser, String> {
    let (user, named_group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let user = if user.is_empty() { "0" } else { user };
    let entry = accounts(passwd).find(|a| a.name == user || Some(a.uid) == number(user));
    let (uid, gid) = match (&entry, number(user)) {
        (Some(account), _) => (account.uid, account.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(format!("user {user} is not in the image's /etc/passwd")),
    };
    let mut resolved = ResolvedUser { uid, gid, additional_gids: Vec::new() };
    if named_group.is_empty() {
        if let Some(account) = entry {
            let member = groups(group).filter(|g| g.members.split(',').any(|m| m == account.name));
            resolved.additional_gids = member.map(|g| g.gid).collect();
        }
    } else {
        let found = groups(group)
            .find(|g| g.name == named_group || Some(g.gid) == number(named_group))
            .map(|g| g.gid);
        resolved.gid = found
            .or_else(|| number(named_group))
            .ok_or_else(|| format!("group {named_group} is not in the image's /etc/group"))?;
    }
    let ids = [resolved.uid, resolved.gid];
    match ids.iter().chain(&resolved.additional_gids).find(|&&id| id > MAX_ID) {
        Some(id) => Err(format!("id {id} of user `{wanted}` is out of range: at most {MAX_ID}")),
        None => Ok(resolved),
    }
}

/// Digits only: `+5` and ` 5` are names.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some(Account { name, uid: number(fields.next()?)?, gid: number(fields.next()?)? })
    })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some(Group { name, gid: number(fields.next()?)?, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\nweb:x:1000:1001:Web:/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root\nweb:x:1001:\nlogs:x:2000:web,other\n";

    fn resolved(text: &str) -> ResolvedUser {
        resolve(text, PASSWD, GROUP).unwrap()
    }

    #[test]
    fn each_form_is_resolved_as_docker_does() {
        let user = |uid, gid, more: &[u32]| ResolvedUser { uid, gid, additional_gids: more.to_vec() };
        assert_eq!(resolved(""), user(0, 0, &[10]));
        assert_eq!(resolved("web"), user(1000, 1001, &[2000]));
        assert_eq!(resolved("1000"), user(1000, 1001, &[2000]));
        assert_eq!(resolved("web:logs"), user(1000, 2000, &[]));
        assert_eq!(resolved("web:7"), user(1000, 7, &[]));
        assert_eq!(resolved("4242"), user(4242, 0, &[]));
        assert_eq!(resolved("4242:logs"), user(4242, 2000, &[]));
        assert_eq!(resolved("5:6"), user(5, 6, &[]));
    }

    #[test]
    fn who_is_not_there_is_named() {
        assert_eq!(
            resolve("nobody", PASSWD, GROUP).unwrap_err(),
            "user nobody is not in the image's /etc/passwd"
        );
        assert_eq!(
            resolve("web:staff", PASSWD, GROUP).unwrap_err(),
            "group staff is not in the image's /etc/group"
        );
        assert!(resolve("4294967295", "", "").unwrap_err().contains("out of range"));
    }

    #[test]
    fn an_image_without_accounts_still_runs_as_root_and_as_a_number() {
        assert_eq!(resolve("", "", "").unwrap(), ResolvedUser::default());
        assert_eq!(
            resolve("12:34", "", "").unwrap(),
            ResolvedUser { uid: 12, gid: 34, additional_gids: vec![] }
        );
    }

    proptest::proptest! {
        #[test]
        fn no_files_make_it_panic_or_leave_the_range(wanted in "\\PC{0,20}", passwd in "[a-z0-9:\n,x]{0,200}", group in "[a-z0-9:\n,x]{0,200}") {
            if let Ok(user) = resolve(&wanted, &passwd, &group) {
                proptest::prop_assert!(user.uid <= MAX_ID && user.gid <= MAX_ID);
            }
        }
    }
}
