//! One suite for every queue: what each must do, run against RabbitMQ and against SQLite.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod dead_letters;
mod putting_in;
mod taking_out;

/// Runs each case once per implementation.
macro_rules! on_both {
    ($($case:path as $name:ident,)*) => {
        mod rabbitmq {
            $(#[tokio::test]
            async fn $name() {
                $case(crate::bench::Bench::rabbitmq().await).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                $case(crate::bench::Bench::sqlite()).await;
            })*
        }
    };
}

on_both! {
    crate::putting_in::every_field as an_envelope_survives_with_every_field_and_every_byte,
    crate::putting_in::many_at_once as events_that_are_put_in_at_once_are_all_there,
    crate::putting_in::put_off as what_is_put_off_comes_back_after_its_time,
    crate::putting_in::closed as a_closed_queue_refuses_and_says_so,
    crate::taking_out::in_order as events_come_in_order_and_are_gone_when_acked,
    crate::taking_out::in_parts as an_ack_reaches_back_and_no_further_than_its_tag,
    crate::taking_out::abandoned as what_was_abandoned_comes_again_and_an_old_ack_is_stale,
    crate::taking_out::paused as a_paused_source_holds_nothing_until_it_is_resumed,
    crate::taking_out::begun_paused as a_source_begun_paused_takes_nothing_before_it_is_resumed,
    crate::taking_out::dropped as what_a_dropped_source_held_comes_again,
    crate::taking_out::stopped as after_a_stop_what_was_taken_is_yielded_and_acked,
    crate::taking_out::depth as the_depth_tells_what_waits_where,
    crate::dead_letters::listed as a_dead_letter_tells_why_and_listing_takes_none,
    crate::dead_letters::commands as a_buried_command_keeps_its_key_and_body,
    crate::dead_letters::replayed as a_replay_takes_what_is_wanted_and_leaves_the_rest,
    crate::dead_letters::too_often as a_letter_replayed_three_times_is_refused_unless_forced,
    crate::dead_letters::owed_again as a_command_that_no_receiver_took_is_owed_again_or_stays,
    crate::dead_letters::dropped as a_drop_takes_what_is_wanted_for_good,
    crate::dead_letters::stopped as a_replay_that_is_stopped_tells_what_it_did_and_can_go_on,
    crate::dead_letters::enough as a_replay_that_has_enough_looks_no_further,
    crate::dead_letters::known as letters_that_are_there_are_known_again,
    crate::dead_letters::slowly as a_replay_keeps_to_its_rate_and_its_number,
}
