-- Gives out the turns of one app: the rules of the budget, "one clock" and "fair by weight" among them.
-- The files of this folder, joined, are one script: state, callers, reports, slots, clock, give, steps. policy/ is the
-- same policy in Python, in files of the same names; the tests hold the two against each other. Here: the call and its
-- rules, and the state, which is loaded once and saved at the end.
--
-- A server forgets its scripts when it restarts, and does not pass them on to its replicas. So this text is loaded under
-- a unique name, the run, in a comment above it: a server that knows the script is the one that has begun the run, and
-- has lost nothing since. See runs.py.
--
-- KEYS: 1 state, 2 callers (caller -> sums and tag), 3 reports (replica -> until when its report holds), 4 flights
--       (block -> flight), 5 shares (caller -> its share on each replica), 6 order (callers, as they come next),
--       7 the block of a begin or of a tick's wish
-- ARGV: 1 the call, as msgpack; 2 tick's rows that have changed, as msgpack; 3 the run of this text; 4 the run that it
--       may replace
-- Returns {msgpack of {epoch, now, answer, why all slots were taken or ''}}, or if nothing was done {'other', run},
-- {'newer'}, or {'resend', why ...} to a tick whose replica must send its whole report. Times are whole milliseconds.
--
-- A tick sends the changes of its replica's report, and the sums over all replicas and callers change by the difference.
-- The order has each caller at its place. So a tick that gives turns reads the callers that come next, those that hold
-- turns and those that have changed; a tick without changes reads none.

local LARGEST = 86400000 -- of any time in the rules
local PAUSE_MAX = 3600000 -- the longest possible pause: anything longer is garbage

local op, rules, replica, epoch, seen_ms, chance, test_raw, args = unpack(cmsgpack.unpack(ARGV[1]))
local RUN, REPLACED = ARGV[3], ARGV[4]
local N, WINDOW, TRANSIT, TURN_LEASE, FETCH_LEASE, REPORT_LEASE, AHEAD, AHEAD_MAX, CLOCK_STEP, GAP, CHANNEL =
  unpack(rules)
local REST = WINDOW + 1 -- for what is lost in rounding
local TAKEN = TRANSIT + REST -- from when a call is sent, if no answer comes
local LONGEST = AHEAD_MAX + TAKEN -- from its begin: its call may be sent AHEAD_MAX later

-- Fields of a slot; pending: held for a turn that has not begun.
local FREE_AT, STARTED, TURN, REPLICA, CALLER, COST, USABLE_AT, BEGUN_AT, BLOCK = 1, 2, 3, 4, 5, 6, 7, 8, 9

-- Sums over all callers: blocks that wait, those of them not in the background; how many callers and reports are kept;
-- when all is made anew. A release before this one keeps neither sums nor the order, and drops the sums from the state:
-- without sums the order is outdated.
local CHECK_EVERY = 60000 -- ms
local BLOCKS, URGENT, CALLERS, REPORTS, CHECK_AT = 1, 2, 3, 4, 5

local S -- the state: format, now, raw, run_id, epoch, virtual, next_id, purge_at, held, pause_until, reason, slots, sums
local now

local function is_number(value, least, most) return type(value) == 'number' and value >= least and value <= most end

local function pending(slot) return slot[TURN] ~= 0 and slot[BEGUN_AT] < 0 end

-- Later formats keep the first four fields.
local FORMAT = 3

local function is_sane_slot(slot)
  local latest = S.now + 2 * TAKEN + 1000 -- others may give turns earlier, by their own rules
  return is_number(slot[FREE_AT], 0, S.now + 2 * LARGEST) and is_number(slot[STARTED], 0, latest)
    and is_number(slot[TURN], 0, 2 ^ 53) and is_number(slot[COST], 0, 1e15)
    and is_number(slot[USABLE_AT], 0, latest) and is_number(slot[BEGUN_AT], -1, S.now)
    and type(slot[REPLICA]) == 'string' and type(slot[CALLER]) == 'string' and type(slot[BLOCK]) == 'string'
end

-- Raise an error unless the state can be one that was saved here.
local function must_be_sane()
  local sane = is_number(S.now, 0, 2 ^ 52) and is_number(S.raw, 0, 2 ^ 52) and is_number(S.epoch, 0, 2 ^ 52)
    and is_number(S.virtual, -1e15, 1e15) and is_number(S.next_id, 0, 2 ^ 53) and is_number(S.purge_at, 0, 2 ^ 52)
    and is_number(S.held, 0, math.max(TRANSIT, 60000)) and is_number(S.pause_until, 0, S.now + PAUSE_MAX)
    and type(S.reason) == 'string'
  for at = 1, S.sums and CHECK_AT or 0 do sane = sane and is_number(S.sums[at], 0, 2 ^ 53) end
  if S.sums then sane = sane and S.sums[CHECK_AT] <= S.now + CHECK_EVERY end
  for _, slot in ipairs(S.slots) do sane = sane and is_sane_slot(slot) end
  if not sane then error('a number that makes no sense in the state') end
end

-- Return why nothing may be done: the state belongs to another run or to a newer release.
local function load()
  local packed = redis.call('GET', KEYS[1])
  local kept = packed and cmsgpack.unpack(packed)
  S = { now = 0, pause_until = 0, reason = '' }
  if not kept then return end
  local format, run_id = kept[1], kept[4]
  if type(run_id) ~= 'string' then error('a state without a run') end
  if format > FORMAT and run_id ~= REPLACED then return { 'newer' } end
  if format ~= FORMAT then
    S.cause = 'format'
    return
  end
  if run_id ~= RUN and run_id ~= REPLACED then return { 'other', run_id } end
  local _
  _, S.now, S.raw, S.run_id, S.epoch, S.virtual, S.next_id, S.purge_at, S.held, S.pause_until, S.reason, S.slots, S.sums =
    unpack(kept)
  must_be_sane()
end

local function save()
  redis.call('SET', KEYS[1], cmsgpack.pack({ FORMAT, now, S.raw, S.run_id, S.epoch, S.virtual, S.next_id, S.purge_at,
    S.held, S.pause_until, S.reason, S.slots, S.sums }))
end
