//! Headless Chromium, driven over a pipe (the Chrome DevTools Protocol): no port, no service, no driver.

use simd_json::OwnedValue;
use simd_json::prelude::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than a browser takes for anything on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<OwnedValue>,
    next: u64,
    /// A page has been loaded.
    loaded: bool,
    /// Where it keeps what it keeps.
    _profile: tempfile::TempDir,
}

/// One tab.
pub struct Tab<'b> {
    browser: &'b mut Browser,
    session: String,
}

impl Browser {
    pub fn start() -> Browser {
        let profile = tempfile::tempdir().expect("a place for its profile");
        // It reads commands from descriptor 3 and answers on 4.
        let line = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --user-data-dir=\"$0\" --remote-debugging-pipe about:blank 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut process = Command::new("sh")
            .args(["-c", line])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let (to, answers) = (process.stdin.take().expect("piped"), process.stdout.take().expect("piped"));
        let (sender, from) = channel();
        std::thread::spawn(move || {
            for answer in BufReader::new(answers).split(0) {
                let Ok(mut answer) = answer else { return };
                let Ok(answer) = simd_json::to_owned_value(&mut answer) else { return };
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        Browser { process, to, from, next: 0, loaded: false, _profile: profile }
    }

    fn call(&mut self, method: &str, session: &str, params: OwnedValue) -> OwnedValue {
        self.next += 1;
        let mut command = simd_json::json!({ "id": self.next, "method": method, "params": params });
        if !session.is_empty() {
            command.try_insert("sessionId", session.to_owned());
        }
        self.to.write_all(format!("{}\0", command.encode()).as_bytes()).expect("chromium runs (Debian's package chromium)");
        loop {
            let answer = self.hear();
            if answer.get_u64("id") == Some(self.next) {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer.get("result").expect("a result").clone();
            }
        }
    }

    fn hear(&mut self) -> OwnedValue {
        let heard = self.from.recv_timeout(LONG).expect("chromium answers (Debian's package chromium)");
        self.loaded |= heard.get_str("method") == Some("Page.loadEventFired");
        heard
    }

    /// A tab with a page that is there.
    pub fn open(&mut self, url: &str) -> Tab<'_> {
        let target = self.call("Target.createTarget", "", simd_json::json!({ "url": "about:blank" }));
        let id = target.get_str("targetId").expect("a target").to_owned();
        let attached = self.call("Target.attachToTarget", "", simd_json::json!({ "targetId": id, "flatten": true }));
        let session = attached.get_str("sessionId").expect("a session").to_owned();
        self.call("Page.enable", &session, simd_json::json!({}));
        self.loaded = false;
        self.call("Page.navigate", &session, simd_json::json!({ "url": url }));
        self.await_page();
        Tab { browser: self, session }
    }

    fn await_page(&mut self) {
        while !self.loaded {
            self.hear();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Tab<'_> {
    /// Loads the page once more.
    pub fn reload(&mut self) {
        self.browser.loaded = false;
        self.browser.call("Page.reload", &self.session, simd_json::json!({}));
        self.browser.await_page();
    }

    /// What an expression of JavaScript comes to; a promise, what it's resolved with. Fails with what is thrown.
    pub fn run(&mut self, expression: &str) -> OwnedValue {
        let params = simd_json::json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.browser.call("Runtime.evaluate", &self.session, params);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer.get("result").and_then(|result| result.get("value")).cloned().unwrap_or_default()
    }

    /// Waits until an expression is true: looked at whenever the page has changed.
    pub fn until(&mut self, condition: &str) {
        let seconds = LONG.as_secs() / 2;
        self.run(&format!(
            "new Promise((resolve, reject) => {{
                const look = () => ({condition}) && (observer.disconnect(), clearTimeout(timer), resolve(true));
                const observer = new MutationObserver(look);
                const late = () => reject(new Error('it never came: ' + document.body.innerText));
                const timer = setTimeout(late, {seconds}000);
                observer.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
                look();
            }})"
        ));
    }
}
