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

#[test]
fn a_live_contact_list_in_a_browser() {
    let mut config = config(2);
    config.listen.ws = Some("127.0.0.1:0".parse().unwrap());
    config.listen.admin = "127.0.0.1:0".parse().unwrap();
    let mut node = TestNode::start(&config);
    let admin = Admin::new(node.0.as_mut().unwrap().start_admin(&config).unwrap(), None);
    for name in ["alice", "bob"] {
        admin.add_user(&format!("{name}@localhost"), Some("pencil")).unwrap();
    }
    let door = node.node().address(Speaks::WebSocket).expect("the door is open").to_string();
    let mut browser = Browser::start();
    let mut tab = browser.open(&format!("http://{door}/demo"));
    tab.until("document.querySelector('#second .log-in')");

    submit(&mut tab, "first", ".log-in", &[("jid", "alice@localhost"), ("password", "wrong")]);
    tab.until("document.querySelector('#first .state').textContent.includes('wrong user, password')");
    for (user, jid) in [("first", "alice@localhost"), ("second", "bob@localhost")] {
        submit(&mut tab, user, ".log-in", &[("jid", jid), ("password", "pencil")]);
        tab.until(&format!("document.querySelector('#{user} .jid').textContent.startsWith('{jid}/web-')"));
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
