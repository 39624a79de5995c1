//! The page at `/demo` and its client, in headless Chromium: two users log in, subscribe, change their presence, move, and go.
mod browser;
mod support;

use browser::{Browser, Tab};
use fanal::admin::client::Client as Admin;
use fanal::front::doors::Speaks;
use simd_json::prelude::*;
use support::*;

/// Fills a form of a user's part of the page in, and sends it off.
fn submit(tab: &mut Tab<'_>, user: &str, form: &str, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        tab.run(&format!("document.querySelector('#{user} {form} [name={name}]').value = '{value}'"));
    }
    tab.run(&format!("document.querySelector('#{user} {form}').requestSubmit()"));
}

/// Waits until a user's contact list shows somebody so.
fn shows(tab: &mut Tab<'_>, user: &str, jid: &str, show: &str, words: &str) {
    let entry = format!("document.querySelector('#{user} .contacts li[data-jid=\"{jid}\"][data-show={show}]')");
    tab.until(&format!("{entry}?.textContent.includes('{words}')"));
}

/// A node with the page, where users of these names have the password "pencil", how it is managed, and where the page is.
fn node(names: &[&str]) -> (TestNode, Admin, String) {
    let mut config = config(2);
    config.listen.ws = Some("127.0.0.1:0".parse().unwrap());
    config.listen.admin = "127.0.0.1:0".parse().unwrap();
    // Without TLS, hashed tokens are to be had where passwords may be said in the clear.
    config.login.plain = true;
    let mut node = TestNode::start(&config);
    let admin = Admin::new(node.0.as_mut().unwrap().start_admin(&config).unwrap(), None);
    for name in names {
        admin.add_user(&format!("{name}@localhost"), Some("pencil")).unwrap();
    }
    let door = node.node().address(Speaks::WebSocket).expect("the door is open").to_string();
    (node, admin, door)
}

/// Logs a user in on a part of the page.
fn log_in(tab: &mut Tab<'_>, user: &str, jid: &str) {
    submit(tab, user, ".log-in", &[("jid", jid), ("password", "pencil")]);
    is_in(tab, user, jid);
}

fn is_in(tab: &mut Tab<'_>, user: &str, jid: &str) {
    tab.until(&format!("document.querySelector('#{user} .jid').textContent.startsWith('{jid}/web-')"));
}

#[test]
fn a_live_contact_list_in_a_browser() {
    let (_node, admin, door) = node(&["alice", "bob"]);
    let mut browser = Browser::start();
    let mut tab = browser.open(&format!("http://{door}/demo"));
    tab.until("document.querySelector('#second .log-in')");

    submit(&mut tab, "first", ".log-in", &[("jid", "alice@localhost"), ("password", "wrong")]);
    tab.until("document.querySelector('#first .state').textContent.includes('wrong user, password')");
    for (user, jid) in [("first", "alice@localhost"), ("second", "bob@localhost")] {
        log_in(&mut tab, user, jid);
    }
    submit(&mut tab, "first", ".add", &[("jid", "bob@localhost")]);
    tab.until("document.querySelector('#second .requests button')");
    tab.run("document.querySelector('#second .requests button').click()");
    shows(&mut tab, "first", "bob@localhost", "available", "");
    shows(&mut tab, "second", "alice@localhost", "available", "");

    submit(&mut tab, "first", ".presence", &[("show", "away"), ("status", "lunch")]);
    shows(&mut tab, "second", "alice@localhost", "away", "lunch");

    // The operator sends alice elsewhere: nobody sees her go, and she misses nothing.
    tab.run(
        "document.wentAway = false; new MutationObserver(() => { document.wentAway ||= \
         document.querySelector('#second .contacts [data-jid=\"alice@localhost\"]').dataset.show === 'unavailable' }) \
         .observe(document.querySelector('#second .contacts'), { subtree: true, childList: true, attributes: true })",
    );
    assert_eq!(admin.transfer("alice@localhost", &door).unwrap(), 1);
    submit(&mut tab, "second", ".presence", &[("show", "do_not_disturb"), ("status", "writing")]);
    shows(&mut tab, "first", "bob@localhost", "do_not_disturb", "writing");
    submit(&mut tab, "first", ".presence", &[("show", "chat"), ("status", "back")]);
    shows(&mut tab, "second", "alice@localhost", "chat", "back");
    assert_eq!(tab.run("document.wentAway").as_bool(), Some(false), "she was never seen to leave");
    assert_eq!(admin.stats().unwrap().all.counters["transfers"], 1);

    tab.run("document.querySelector('#first .log-out').click()");
    shows(&mut tab, "second", "alice@localhost", "unavailable", "");
}

#[test]
fn xep_0484_a_page_that_is_loaded_again_comes_back_by_its_token_until_it_logs_out() {
    let (_node, admin, door) = node(&["alice", "bob"]);
    let mut browser = Browser::start();
    let mut tab = browser.open(&format!("http://{door}/demo"));
    log_in(&mut tab, "first", "alice@localhost");
    log_in(&mut tab, "second", "bob@localhost");
    let kept = "JSON.parse(sessionStorage.getItem('first')).remember";
    for count in 1..3 {
        tab.reload();
        is_in(&mut tab, "first", "alice@localhost");
        assert_eq!(tab.run(&format!("{kept}.count")).as_u64(), Some(count), "it was shown so often");
    }
    // A token that is of no use is forgotten, and the password asked for.
    admin.remove_user("alice@localhost").unwrap();
    tab.reload();
    is_in(&mut tab, "second", "bob@localhost");
    tab.until("document.querySelector('#first .state').textContent.includes('wrong user, password')");
    assert!(tab.run(kept).is_null());
    // Somebody has a copy of bob's, which lets him in until he logs out, if he shows it less often.
    let copy = |tab: &mut Tab<'_>, shown: u32| {
        tab.run(&format!(
            "const {{ jid, remember }} = JSON.parse(sessionStorage.getItem('second')); \
             localStorage.setItem('copy', JSON.stringify({{ jid, remember: {{ ...remember, count: remember.count + {shown} }} }}))"
        ));
    };
    let come_back = |tab: &mut Tab<'_>| {
        tab.run("sessionStorage.setItem('second', localStorage.getItem('copy'))");
        tab.reload();
    };
    copy(&mut tab, 5);
    come_back(&mut tab);
    is_in(&mut tab, "second", "bob@localhost");
    copy(&mut tab, 5);
    tab.run("document.querySelector('#second .log-out').click()");
    tab.until("document.querySelector('#second .state').textContent === 'offline'");
    tab.until("document.querySelector('#second .session').hidden");
    tab.reload();
    assert_eq!(tab.run("document.querySelector('#second .log-in').hidden").as_bool(), Some(false));
    come_back(&mut tab);
    tab.until("document.querySelector('#second .state').textContent.includes('wrong user, password')");
}
