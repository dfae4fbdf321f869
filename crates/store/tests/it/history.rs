//! How much of a device's past is kept.

use crate::support::{apply, news, store};
use porchlight_testbed::redis::Reply;

#[tokio::test]
async fn a_list_of_history_is_cut_a_few_lines_late_and_never_grows_further() {
    let (redis, store) = store().await;
    for at in 0..100 {
        apply(&store, &news("device_online", "dev", at), 0).await.unwrap();
    }
    let script = "return redis.call('LLEN', redis.call('KEYS', '*:h:*')[1])";
    let stored = redis.command(&["EVAL", script, "0"]).unwrap();
    assert!(matches!(stored, Reply::Number(20..=24)), "{stored:?}");
}
