//! `dead list` in each form: pages, totals, and every condition.

use serde_json::{Value, json};

use crate::site::{Form, Site};

fn ids(listed: &Value) -> Vec<String> {
    let letters = listed["letters"].as_array().unwrap();
    let id = |letter: &Value| letter["message_id"].as_str().unwrap().to_owned();
    letters.iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_paged_counted_and_picked_alike_in_every_form() {
    for form in [Form::Scaled, Form::Directory, Form::Api] {
        let site = Site::start(form).await;
        let mut buried = Vec::new();
        for number in 0..7 {
            let reason = if number < 4 { "no_device" } else { "not_json" };
            buried.push(site.bury(number, reason, u32::from(number == 6)).await);
        }
        let list = async |arguments: &[&str]| {
            let arguments = [&["dead", "list", "--json"], arguments].concat();
            site.run(&arguments).await.expect(0).json()
        };
        let all = list(&[]).await;
        assert_eq!(ids(&all), buried, "{form:?}");
        assert_eq!(
            all["by_reason"],
            json!({ "no_device": 4, "not_json": 3 }),
            "{form:?}"
        );
        assert_eq!(
            all["by_type"],
            json!({ "device_online": 4, "device_offline": 3 }),
            "{form:?}"
        );
        assert_eq!(all["next_after"], Value::Null, "{form:?}");

        let first = list(&["--limit", "3"]).await;
        assert_eq!(
            (ids(&first), &first["matching"]),
            (buried[..3].to_vec(), &7.into()),
            "{form:?}"
        );
        assert_eq!(first["next_after"], buried[2], "{form:?}");
        let second = list(&["--limit", "3", "--after", &buried[2]]).await;
        assert_eq!(ids(&second), buried[3..6], "{form:?}");
        let third = list(&["--limit", "3", "--page", "3"]).await;
        assert_eq!(
            (ids(&third), &third["next_after"]),
            (buried[6..].to_vec(), &Value::Null),
            "{form:?}"
        );
        let nowhere = site.run(&["dead", "list", "--after", "nothing"]).await.expect(1);
        assert!(nowhere.stderr.contains("begins with nothing"), "{nowhere:?}");

        for (arguments, matching) in [
            (["--text", "\"d5\""], 1),
            (["--text", "nowhere in it"], 0),
            (["--replays", "1.."], 1),
            (["--replays", "0"], 6),
            (["--stage", "decide"], 7),
            (["--account", "acct"], 7),
        ] {
            let some = list(&arguments).await;
            assert_eq!(some["matching"], matching, "{form:?} {arguments:?}");
        }
    }
}
