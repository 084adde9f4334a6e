-- Gives out the turns of one app: the rules of the budget, "one clock" and "fair by weight" among them.
-- policy.py is the same policy in Python, function by function; the tests hold the two against each other.
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

local BOARD_ROWS, HELD_SHARE = 1000, 8
local LARGEST = 86400000 -- of any time in the rules
local CHECK_EVERY = 60000 -- how often the sums and the order are made anew
local PAUSE_MAX = 3600000 -- the longest possible pause: anything longer is garbage
local SAME = 20 -- differences in the oldest one's time of entry up to this are those of clock readings
local SPANS = 1024 -- of an epoch; its number is a multiple of this, plus the span's

local op, rules, replica, epoch, seen_ms, chance, test_raw, args = unpack(cmsgpack.unpack(ARGV[1]))
local RUN, REPLACED = ARGV[3], ARGV[4]
local N, WINDOW, TRANSIT, TURN_LEASE, FETCH_LEASE, REPORT_LEASE, AHEAD, AHEAD_MAX, CLOCK_STEP, GAP, CHANNEL =
  unpack(rules)
local REST = WINDOW + 1 -- for what is lost in rounding
local TAKEN = TRANSIT + REST -- from when a call is sent, if no answer comes
local LONGEST = AHEAD_MAX + TAKEN -- from its begin: its call may be sent AHEAD_MAX later

-- Fields of a slot; pending: held for a turn that has not begun.
local FREE_AT, STARTED, TURN, REPLICA, CALLER, COST, USABLE_AT, BEGUN_AT, BLOCK = 1, 2, 3, 4, 5, 6, 7, 8, 9

local S -- the state: format, now, raw, run_id, epoch, virtual, next_id, purge_at, held, pause_until, reason, slots, sums
local now

local function is_number(value, least, most) return type(value) == 'number' and value >= least and value <= most end

local function pending(slot) return slot[TURN] ~= 0 and slot[BEGUN_AT] < 0 end

-- Callers: their sums over all replicas, their tags, and their places in the order

-- Fields of a caller; STANDING: 0 without a tag, IDLE, WAITS. Fields of its share on a replica.
local WEIGHT, COUNT, SINCE, BACKGROUND, TAG, STANDING = 1, 2, 3, 4, 5, 6
local NAME, TURNS, SHARES = 7, 8, 9 -- exist within a call only: TURNS counts the turns held, absent for none
local PLACE, SUMMED, SUMMED_URGENT = 10, 11, 12 -- likewise: what the order and the sums have
local IDLE, WAITS = 1, 2
local S_REPLICA, S_WEIGHT, S_COUNT, S_SINCE, S_BACKGROUND = 1, 2, 3, 4, 5

-- Sums over all callers: blocks that wait, those of them not in the background; how many callers and reports are kept;
-- when all is made anew. A release before this one keeps neither sums nor the order, and drops the sums from the state:
-- without sums the order is outdated.
local BLOCKS, URGENT, CALLERS, REPORTS, CHECK_AT = 1, 2, 3, 4, 5

-- A place sorts by its class, tag, time of entry and name. Callers to check at the next look are UNSETTLED.
local FOREGROUND, BEHIND, IDLERS, UNSETTLED, LAST = '1', '2', '3', '4', '5'
local NAME_AT = 18

-- Return eight bytes that sort as the number does.
local function sortable(number)
  local bytes = struct.pack('>d', number + 0) -- not -0
  if number < 0 then
    return (string.gsub(bytes, '.', function(byte) return string.char(255 - string.byte(byte)) end))
  end
  return string.char(string.byte(bytes) + 128) .. string.sub(bytes, 2)
end

local function place_of(caller)
  local class = UNSETTLED
  if caller[STANDING] == WAITS and caller[COUNT] > 0 then
    class = caller[BACKGROUND] and BEHIND or FOREGROUND
  elseif caller[STANDING] == IDLE and caller[COUNT] == 0 then
    class = IDLERS
  end
  return class .. sortable(caller[TAG]) .. sortable(caller[SINCE]) .. caller[NAME]
end

-- Return the places from one class up to another one or to a place; `most` at most.
local function places(from, upto, most)
  return redis.call('ZRANGE', KEYS[6], '[' .. from, '(' .. upto, 'BYLEX', 'LIMIT', 0, most or -1)
end

local function urgent_of(caller) return caller[BACKGROUND] and 0 or caller[COUNT] end

local function caller_from(name, packed)
  local caller = cmsgpack.unpack(packed)
  caller[NAME] = name
  caller[PLACE], caller[SUMMED], caller[SUMMED_URGENT] = place_of(caller), caller[COUNT], urgent_of(caller)
  return caller
end

local function new_caller(name) return { 0, 0, 0, true, 0, 0, name, nil, nil, nil, 0, 0 } end

local function read_caller(name)
  local packed = redis.call('HGET', KEYS[2], name)
  return packed and caller_from(name, packed)
end

local function caller_at(place)
  local caller = read_caller(string.sub(place, NAME_AT))
  if not caller or caller[PLACE] ~= place then error('a place without its caller') end
  return caller
end

local function add_to_sum(at, number)
  if S.sums then S.sums[at] = S.sums[at] + number end
end

-- Move a caller to this place in the order, nil for none, and change the sums by what has changed.
local function move(caller, place)
  if not S.sums then return end
  local blocks, urgent = place and caller[COUNT] or 0, place and urgent_of(caller) or 0
  add_to_sum(BLOCKS, blocks - caller[SUMMED])
  add_to_sum(URGENT, urgent - caller[SUMMED_URGENT])
  if place ~= caller[PLACE] then
    if caller[PLACE] then redis.call('ZREM', KEYS[6], caller[PLACE]) end
    if place then redis.call('ZADD', KEYS[6], 0, place) end
  end
  caller[PLACE], caller[SUMMED], caller[SUMMED_URGENT] = place, blocks, urgent
end

local function write_caller(caller)
  local weight, count, since, background, tag, standing = unpack(caller, 1, STANDING)
  local packed = cmsgpack.pack({ weight, count, since, background, tag, standing })
  add_to_sum(CALLERS, redis.call('HSET', KEYS[2], caller[NAME], packed))
  move(caller, place_of(caller))
end

local function forget_caller(caller)
  add_to_sum(CALLERS, -redis.call('HDEL', KEYS[2], caller[NAME]))
  move(caller, nil)
end

local function shares_of(name)
  local packed = redis.call('HGET', KEYS[5], name)
  return packed and cmsgpack.unpack(packed) or {}
end

local function share_on(shares, of)
  for at, share in ipairs(shares) do
    if share[S_REPLICA] == of then return share, at end
  end
end

-- If replicas disagree about a weight, the largest counts; a caller is in the background if it is so on all replicas.
local function write_shares(name, shares)
  local caller = read_caller(name) or new_caller(name)
  local first = shares[1]
  caller[WEIGHT], caller[COUNT], caller[SINCE], caller[BACKGROUND] = 0, 0, first and first[S_SINCE] or 0, true
  for _, share in ipairs(shares) do
    caller[WEIGHT] = math.max(caller[WEIGHT], share[S_WEIGHT])
    caller[COUNT] = caller[COUNT] + share[S_COUNT]
    caller[SINCE] = math.min(caller[SINCE], share[S_SINCE])
    caller[BACKGROUND] = caller[BACKGROUND] and share[S_BACKGROUND]
  end
  if first then
    redis.call('HSET', KEYS[5], name, cmsgpack.pack(shares))
  else
    redis.call('HDEL', KEYS[5], name)
  end
  if first or caller[STANDING] > 0 then
    write_caller(caller)
  else
    forget_caller(caller)
  end
end

local function is_same(share, other)
  return share[S_WEIGHT] == other[S_WEIGHT] and share[S_COUNT] == other[S_COUNT]
    and share[S_BACKGROUND] == other[S_BACKGROUND] and math.abs(share[S_SINCE] - other[S_SINCE]) <= SAME
end

local function write_share(name, of, share)
  local shares = shares_of(name)
  local known, at = share_on(shares, of)
  if known and share and is_same(known, share) then return end
  if at then table.remove(shares, at) end
  if share then shares[#shares + 1] = share end
  if at or share then write_shares(name, shares) end
end

-- Forget the shares on replicas that are not `live`.
local function drop_dead(live)
  local packed = redis.call('HGETALL', KEYS[5])
  for at = 1, #packed, 2 do
    local left, shares = {}, cmsgpack.unpack(packed[at + 1])
    for _, share in ipairs(shares) do
      if live[share[S_REPLICA]] then left[#left + 1] = share end
    end
    if #left < #shares then write_shares(packed[at], left) end
  end
end

-- Forget this replica's shares of callers that it has not `reported`.
local function drop_unreported(reported)
  local packed = redis.call('HGETALL', KEYS[5])
  for at = 1, #packed, 2 do
    local name = packed[at]
    if not reported[name] and string.find(packed[at + 1], replica, 1, true) then write_share(name, replica, nil) end
  end
end

-- Make the sums and the order anew. Callers that are lost are made from their shares, without their tags.
local function sum_up()
  local lost = S.sums and redis.call('HLEN', KEYS[2]) ~= S.sums[CALLERS]
  S.sums = nil
  if lost then
    local packed = redis.call('HGETALL', KEYS[5])
    for at = 1, #packed, 2 do write_shares(packed[at], cmsgpack.unpack(packed[at + 1])) end
  end
  local packed = redis.call('HGETALL', KEYS[2])
  redis.call('DEL', KEYS[6])
  S.sums = { 0, 0, #packed / 2, redis.call('HLEN', KEYS[3]), now + CHECK_EVERY }
  for at = 1, #packed, 2 do
    local caller = caller_from(packed[at], packed[at + 1])
    caller[PLACE], caller[SUMMED], caller[SUMMED_URGENT] = nil, 0, 0
    move(caller, place_of(caller))
  end
end

local function reports_are_lost() return S.sums and S.sums[REPORTS] ~= redis.call('HLEN', KEYS[3]) end

local function is_summed_up()
  local sums = S.sums
  return sums and now < sums[CHECK_AT] and redis.call('HLEN', KEYS[2]) == sums[CALLERS]
    and redis.call('ZCARD', KEYS[6]) == sums[CALLERS]
end

-- Slots and turns

local function slot_of(turn)
  if turn == 0 then return nil end
  for _, slot in ipairs(S.slots) do
    if slot[TURN] == turn and slot[REPLICA] == replica then return slot end
  end
end

-- Refund an unused turn: restore the slot's free time and the caller's position.
local function refund(slot)
  slot[TURN] = 0
  local caller = read_caller(slot[CALLER])
  if caller and caller[STANDING] > 0 then
    caller[TAG] = caller[TAG] - slot[COST]
    write_caller(caller)
  end
end

local function flight_of(block)
  local packed = redis.call('HGET', KEYS[4], block)
  if packed then
    local turn, ends = unpack(cmsgpack.unpack(packed))
    if not is_number(ends, 0, now + 10 * FETCH_LEASE + 60000) then error('a fetch that never ends') end
    return { turn = turn, ends = ends }
  end
end

local function end_flight(block, turn)
  local flight = flight_of(block)
  if flight and flight.turn == turn then
    redis.call('HDEL', KEYS[4], block)
    redis.call('PUBLISH', CHANNEL, block)
    return true
  end
end

-- When the call of a turn that has begun is sent: a turn may begin before it is usable.
local function sent_at(slot) return math.max(slot[BEGUN_AT], slot[USABLE_AT]) end

-- `took` is the time from when the last begin was sent until the answer: so it has come by that time after the begin.
local function give_back(turn, took)
  local slot = slot_of(turn)
  if not slot then return end
  if pending(slot) then return refund(slot) end
  local sent = sent_at(slot)
  local answered = math.max(sent, math.min(now, slot[BEGUN_AT] + took))
  S.held = S.held + (math.min(answered - sent, TRANSIT) - S.held) / HELD_SHARE
  slot[FREE_AT] = math.min(slot[FREE_AT], answered + REST)
  slot[TURN] = 0
  end_flight(slot[BLOCK], turn)
end

-- Take back a turn that has led to no call: if it has begun, that is undone.
local function return_turn(turn)
  local slot = slot_of(turn)
  if slot and not pending(slot) and slot[FREE_AT] == sent_at(slot) + TAKEN then
    slot[FREE_AT], slot[BEGUN_AT] = slot[USABLE_AT], -1
    end_flight(slot[BLOCK], turn)
  end
  give_back(turn, LARGEST)
end

-- Take one from the demand that this slot's turn was given for.
local function take_off(slot)
  local share = share_on(shares_of(slot[CALLER]), slot[REPLICA])
  if not share then return end
  share[S_COUNT] = share[S_COUNT] - 1
  write_share(slot[CALLER], slot[REPLICA], share[S_COUNT] > 0 and share or nil)
end

-- The clock and expiry

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

-- Redis has restarted, failed over or lost its data: its state is not reliable, except for a pause.
local function reset(cause)
  S.run_id, S.epoch, S.next_id, S.virtual, S.purge_at, S.held, S.slots, S.cause =
    RUN, chance * SPANS, chance * 2 ^ 20, 0, 0, 0, {}, cause
  S.sums = { 0, 0, 0, 0, S.now + CHECK_EVERY }
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
end

-- Read the server's clock or, if it has stepped, the latest time that is certain. That loses time, which no replica's
-- clock may bring back, because slots have been taken by the slower clock: a new epoch begins. A step back that no
-- replica's clock could have shown begins a new span of the epoch: a clock from an earlier span still shows a step, but
-- its time is not used. One of this span may be behind the others by as much as Redis took to answer it: less than
-- CLOCK_STEP.
local function advance(raw)
  local is_known = epoch - epoch % SPANS == S.epoch - S.epoch % SPANS
  local seen = is_known and math.max(S.now, seen_ms) or S.now
  local by_clock = S.now + raw - S.raw
  if seen <= by_clock and by_clock < seen + CLOCK_STEP then
    S.now = by_clock
    if not is_known then S.epoch = S.epoch - S.epoch % SPANS + (S.epoch + 1) % SPANS end
  else
    local sure = epoch == S.epoch and seen - CLOCK_STEP or S.now
    if by_clock < seen then sure = math.max(sure, by_clock) end
    S.now, S.epoch = math.max(S.now, sure), chance * SPANS
  end
end

-- Remove those that are free latest: the others continue if replicas with different numbers of slots take turns.
local function spare_slot()
  local best
  for at, slot in ipairs(S.slots) do
    local other = best and S.slots[best]
    if not best or (pending(other) and not pending(slot))
      or (pending(other) == pending(slot) and slot[FREE_AT] > other[FREE_AT]) then
      best = at
    end
  end
  return best
end

local function settle()
  local raw = test_raw
  if raw < 0 then
    local time = redis.call('TIME')
    raw = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  if S.run_id == RUN then advance(raw) else reset(S.cause or (S.run_id and 'run' or 'new')) end
  S.raw = raw
  now = S.now
  for _, slot in ipairs(S.slots) do
    slot[FREE_AT] = math.min(slot[FREE_AT], now + LONGEST) -- taken by one with a longer window
    if pending(slot) and now >= slot[USABLE_AT] + TURN_LEASE then refund(slot) end
  end
  while #S.slots > N do
    local at = spare_slot()
    if pending(S.slots[at]) then refund(S.slots[at]) end
    table.remove(S.slots, at)
  end
  while #S.slots < N do
    S.slots[#S.slots + 1] = { now + LONGEST, now, 0, '', '', 0, 0, -1, '' }
  end
end

-- Who is next

local function free_slots()
  local free = 0
  for _, slot in ipairs(S.slots) do
    if not pending(slot) and slot[FREE_AT] <= now + AHEAD then free = free + 1 end
  end
  return free
end

local function last_start()
  local last
  for _, slot in ipairs(S.slots) do
    local start = pending(slot) and slot[USABLE_AT] or slot[STARTED]
    if not last or start > last then last = start end
  end
  return last
end

-- Return how many slots must be free for a background turn: one is kept for new requests.
local SPARE = math.min(2, N)

-- Return when the next turn is usable if `count` wait for one; `urgent` if not all of them are in the background.
local function next_at(count, urgent)
  local frees = {}
  for at, slot in ipairs(S.slots) do
    frees[at] = pending(slot) and slot[USABLE_AT] + TURN_LEASE + AHEAD or slot[FREE_AT]
  end
  table.sort(frees)
  local at = math.max(now, S.pause_until, frees[urgent and 1 or SPARE])
  if count > math.max(1, free_slots()) then at = math.max(at, last_start() + GAP) end
  return at
end

-- Return how many of a caller's blocks wait without a turn.
local function lacks(caller) return caller[COUNT] - (caller[TURNS] or 0) end

-- Take one from the demand without a turn.
local function take(seen, caller, share)
  share[S_COUNT], caller[TURNS], seen.count = share[S_COUNT] - 1, (caller[TURNS] or 0) + 1, seen.count - 1
  if not caller[BACKGROUND] then seen.urgent = seen.urgent - 1 end
end

-- Return the demand to consider for pacing: background demand counts only if there is no other.
local function pressing(urgent, count) return urgent > 0 and urgent or count end

-- Forget the replicas whose reports have expired or are lost.
local function bury_dead()
  local gone, packed, live, lives = reports_are_lost(), redis.call('HGETALL', KEYS[3]), {}, 0
  for at = 1, #packed, 2 do
    local expires = cmsgpack.unpack(packed[at + 1])[1]
    if not is_number(expires, 0, now + 10 * REPORT_LEASE + 60000) then error('a report that never expires') end
    if expires > now then
      live[packed[at]], lives = true, lives + 1
    else
      redis.call('HDEL', KEYS[3], packed[at])
      gone = true
    end
  end
  if S.sums then S.sums[REPORTS] = lives end
  if gone then drop_dead(live) end
end

local function shares_in(caller)
  if not caller[SHARES] then caller[SHARES] = shares_of(caller[NAME]) end
  return caller[SHARES]
end

-- A caller that returns starts at the present virtual time; one that has left is forgotten once that has passed. If no
-- caller of the previous look still waits, virtual time starts again. `moved` are the callers to check.
local function bring_up_tags(moved, held, carried)
  if not carried then
    S.virtual = 0
    for _, caller in ipairs(moved) do caller[STANDING] = 0 end
  end
  local passed = carried and IDLERS .. sortable(S.virtual) .. '\255\255' or UNSETTLED
  for _, place in ipairs(places(IDLERS, passed)) do
    if not held[string.sub(place, NAME_AT)] then forget_caller(caller_at(place)) end
  end
  for _, caller in ipairs(moved) do
    if caller[COUNT] > 0 or held[caller[NAME]] then
      caller[TAG] = caller[STANDING] == IDLE and math.max(caller[TAG], S.virtual) or S.virtual
      caller[STANDING] = WAITS
      write_caller(caller)
    elseif caller[STANDING] == 0 or caller[TAG] <= S.virtual then
      forget_caller(caller)
    elseif caller[STANDING] == WAITS then
      caller[STANDING] = IDLE
      write_caller(caller)
    end
  end
end

-- Update the callers' tags, and return the demand over all live replicas, less the turns held unused: `known` are
-- callers read, `holders` how many hold turns. A caller's shares are read only when needed.
local function look()
  bury_dead()
  if not is_summed_up() then sum_up() end
  local known, holders, moved, carried = {}, 0, {}, #places(FOREGROUND, IDLERS, 1) > 0
  for _, slot in ipairs(S.slots) do
    local name = slot[CALLER]
    if pending(slot) and not known[name] then
      local caller = read_caller(name) or new_caller(name)
      known[name], holders = caller, holders + 1
      if caller[STANDING] == WAITS then carried = true else moved[#moved + 1] = caller end
    end
  end
  for _, place in ipairs(places(UNSETTLED, LAST)) do
    if not known[string.sub(place, NAME_AT)] then moved[#moved + 1] = caller_at(place) end
  end
  bring_up_tags(moved, known, carried)
  local seen = { count = S.sums[BLOCKS], urgent = S.sums[URGENT], known = known, holders = holders }
  for _, slot in ipairs(S.slots) do
    local caller = pending(slot) and known[slot[CALLER]]
    if caller and caller[COUNT] > 0 then
      local share = share_on(shares_in(caller), slot[REPLICA])
      if share and share[S_COUNT] > 0 then take(seen, caller, share) end
    end
  end
  return seen
end

-- Return the first callers in the order, `most` at most.
local function first_callers(seen, most)
  local first = {}
  for at, place in ipairs(places(FOREGROUND, IDLERS, most)) do
    local name = string.sub(place, NAME_AT)
    seen.known[name] = seen.known[name] or caller_at(place)
    first[at] = seen.known[name]
  end
  return first
end

local function comes_before(a, b)
  if a[BACKGROUND] ~= b[BACKGROUND] then return b[BACKGROUND] end
  if a[TAG] ~= b[TAG] then return a[TAG] < b[TAG] end
  if a[SINCE] ~= b[SINCE] then return a[SINCE] < b[SINCE] end
  return a[NAME] < b[NAME]
end

-- Of as many callers without a turn as turns can be given, at least one has not moved back by a turn since.
local function next_caller(seen)
  seen.first = seen.first or first_callers(seen, seen.holders + free_slots())
  local best
  for _, caller in ipairs(seen.first) do
    if lacks(caller) > 0 and (not best or comes_before(caller, best)) then best = caller end
  end
  return best or error('demand without a caller')
end

local function next_share(caller)
  local best
  for _, share in ipairs(shares_in(caller)) do
    if share[S_COUNT] > 0 and (not best or share[S_SINCE] < best[S_SINCE]
      or (share[S_SINCE] == best[S_SINCE] and share[S_REPLICA] < best[S_REPLICA])) then
      best = share
    end
  end
  return best
end

-- Give all turns that are due.
local function give(seen)
  local paced = pressing(seen.urgent, seen.count) > free_slots()
  while seen.count > 0 do
    local slot
    for _, each in ipairs(S.slots) do
      if not pending(each) and (not slot or each[FREE_AT] < slot[FREE_AT]) then slot = each end
    end
    if not slot then return end
    local usable_at = math.max(now, S.pause_until, slot[FREE_AT])
    if paced then usable_at = math.max(usable_at, last_start() + GAP) end
    if usable_at > now + AHEAD then return end
    local caller = next_caller(seen)
    if caller[BACKGROUND] and free_slots() < SPARE then return end
    local share, cost = next_share(caller), 1 / caller[WEIGHT]
    if not caller[BACKGROUND] then S.virtual = math.max(S.virtual, caller[TAG]) end
    S.next_id = S.next_id + 1
    slot[TURN], slot[REPLICA], slot[CALLER], slot[COST] = S.next_id, share[S_REPLICA], caller[NAME], cost
    slot[USABLE_AT], slot[BEGUN_AT], slot[BLOCK] = usable_at, -1, ''
    caller[TAG] = caller[TAG] + cost
    write_caller(caller)
    take(seen, caller, share)
  end
end

local function board(seen)
  local ranks = {}
  for _, caller in ipairs(first_callers(seen, seen.holders + BOARD_ROWS)) do
    if lacks(caller) > 0 and #ranks < BOARD_ROWS then
      ranks[#ranks + 1] =
        { caller[NAME], lacks(caller), caller[TAG], caller[WEIGHT], now - caller[SINCE], caller[BACKGROUND] }
    end
  end
  return { S.virtual, math.floor(S.held + 0.5), ranks }
end

-- Update the callers' tags and give all turns that are due.
local function give_due(wants_board)
  local seen = look()
  give(seen)
  seen.board = wants_board and board(seen) or nil
  return seen
end

-- The three steps

-- Apply a report, unless a later one of the same replica has overtaken it: return whether it was applied.
local function take_report(count, whole, number)
  local packed = redis.call('HGET', KEYS[3], replica)
  if packed and cmsgpack.unpack(packed)[2] > number then return false end
  local may_have_others, reported = whole and (packed or reports_are_lost()), {}
  for _, row in ipairs(cmsgpack.unpack(ARGV[2])) do
    local name, weight, waits, waited, background = unpack(row)
    reported[name] = true
    write_share(name, replica, waits > 0 and { replica, weight, waits, now - waited, background } or nil)
  end
  if may_have_others then drop_unreported(reported) end
  if count > 0 then
    add_to_sum(REPORTS, redis.call('HSET', KEYS[3], replica, cmsgpack.pack({ now + REPORT_LEASE, number })))
  else
    add_to_sum(REPORTS, -redis.call('HDEL', KEYS[3], replica))
  end
  return true
end

-- Return the first bytes of the stored block in hexadecimal digits; '' if there is none, or a value of another type,
-- which a fetch replaces.
local function stored_head(bytes)
  local head = redis.pcall('GETRANGE', KEYS[7], 0, bytes - 1)
  if type(head) ~= 'string' then return '' end
  return (string.gsub(head, '.', function(char) return string.format('%02x', string.byte(char)) end))
end

-- Remove the fetches whose leases have ended, once in a lease.
local function purge_flights()
  if now < S.purge_at then return end
  local packed = redis.call('HGETALL', KEYS[4])
  for at = 1, #packed, 2 do
    if cmsgpack.unpack(packed[at + 1])[2] <= now then redis.call('HDEL', KEYS[4], packed[at]) end
  end
  S.purge_at = now + FETCH_LEASE
end

local function is_paused(slot) return S.pause_until > math.max(now, slot[USABLE_AT]) end

local function begin(turn, block, known, head_bytes)
  local slot, flight = slot_of(turn), flight_of(block)
  if not slot or (not pending(slot) and slot[BLOCK] ~= block) then
    end_flight(block, turn)
    return { 'lapsed' }
  end
  local other = flight and flight.turn ~= turn and flight.ends > now
  local head = pending(slot) and stored_head(head_bytes) or ''
  local stored = head ~= '' and head ~= known
  if other or stored then
    if pending(slot) then take_off(slot) end
    give_back(turn, LARGEST)
    if stored then return { 'stored', 0, head } end
    return { 'joined', flight.ends - now }
  end
  if is_paused(slot) then
    give_back(turn, LARGEST)
    return { 'paused', S.pause_until - now, S.reason }
  end
  if pending(slot) then
    take_off(slot)
    slot[STARTED], slot[BLOCK] = slot[USABLE_AT], block
  end
  slot[BEGUN_AT] = now
  local sent = sent_at(slot)
  slot[FREE_AT] = sent + TAKEN
  purge_flights()
  redis.call('HSET', KEYS[4], block, cmsgpack.pack({ turn, sent + FETCH_LEASE }))
  return { 'begun', sent - now }
end

-- Begin what the replica wishes for, if it has a turn for that caller which it does not use: which it does not know yet.
local function grant(wish)
  local used = {}
  for _, turn in ipairs(wish[7]) do used[turn] = true end
  for _, slot in ipairs(S.slots) do
    if pending(slot) and slot[REPLICA] == replica and slot[CALLER] == wish[2] and not used[slot[TURN]]
      and not is_paused(slot) then
      slot[TURN] = wish[1]
      return begin(wish[1], wish[3], wish[4], wish[5])
    end
  end
end

-- `wish`: the id that its turn is to get, its caller, begin's other arguments, whether it is in the background, and the
-- turns that the replica uses.
local function tick(returned, quiet, wants_board, count, urgent, whole, number, _, wish)
  for _, turn in ipairs(returned) do return_turn(turn) end
  local is_latest = take_report(count, whole, number)
  if quiet then
    for _, slot in ipairs(S.slots) do
      if pending(slot) then refund(slot) end
      slot[TURN] = 0 -- no `done` may free it sooner
      slot[FREE_AT] = math.max(slot[FREE_AT], now + TAKEN)
    end
  end
  if not is_latest then wish = nil end
  local seen
  local begun = wish and grant(wish)
  if wants_board or (count > 0 and S.pause_until <= now + AHEAD and free_slots() > 0) then
    seen = give_due(wants_board)
    if wish and not begun then
      begun = grant(wish)
      if begun and begun[1] ~= 'begun' then -- its turn has been passed on
        seen = give_due(wants_board)
      end
    end
  end
  local turns, held, free, left = {}, {}, 0, count
  if begun then
    left = left - 1
    if not wish[6] then urgent = urgent - 1 end
    if left == 0 then add_to_sum(REPORTS, -redis.call('HDEL', KEYS[3], replica)) end
  end
  for _, slot in ipairs(S.slots) do
    if pending(slot) then
      if slot[REPLICA] == replica then
        turns[#turns + 1] = { slot[TURN], slot[CALLER], math.max(0, slot[USABLE_AT] - now) }
        held[slot[CALLER]] = (held[slot[CALLER]] or 0) + 1
      end
    elseif slot[FREE_AT] <= now then
      free = free + 1
    end
  end
  for name, number_held in pairs(held) do
    local share = share_on(shares_of(name), replica)
    if share then
      local used = math.min(share[S_COUNT], number_held)
      left = left - used
      if not share[S_BACKGROUND] then urgent = urgent - used end
    end
  end
  local waits = math.max(pressing(urgent, left), seen and pressing(seen.urgent, seen.count) or 0)
  local due = next_at(waits, urgent > 0) - AHEAD - now
  local pause = math.max(0, S.pause_until - now)
  return { turns, left > 0 and math.max(0, due) or -1, free, pause, pause > 0 and S.reason or '',
    begun or { '' }, seen and seen.board }
end

local function done(turn, block, pause_ms, reason, took)
  if not end_flight(block, turn) then redis.call('PUBLISH', CHANNEL, block) end
  give_back(turn, took)
  if pause_ms > 0 and now + pause_ms > S.pause_until then S.pause_until, S.reason = now + pause_ms, reason end
  return {}
end

local STEPS = { tick = tick, begin = begin, done = done }

local function run()
  settle()
  local answer = STEPS[op](unpack(args))
  save()
  return { cmsgpack.pack({ S.epoch, now, answer, S.cause or '' }) }
end

-- Unreadable or nonsensical values under a key count as lost. Refusals by Redis do not.
local function is_garbage(fault)
  return string.find(fault, '^-?WRONGTYPE') or string.find(fault, '^@?user_script')
end

local function text_of(fault) return type(fault) == 'table' and fault.err or tostring(fault) end

-- A tick sends differences to the report known here; without one, the whole report is needed.
local function lacks_report()
  if op ~= 'tick' or args[6] then return false end
  local packed = S.run_id == RUN and redis.call('HGET', KEYS[3], replica)
  return not packed or cmsgpack.unpack(packed)[2] < args[8]
end

local done_well, answer = pcall(function()
  local reason = load()
  if reason then return reason end
  return lacks_report() and { 'resend', '' } or run()
end)
if done_well then return answer end
local fault = text_of(answer)
if not is_garbage(fault) then return redis.error_reply(fault) end
redis.call('DEL', KEYS[1])
S = { now = 0, pause_until = 0, reason = '', cause = fault }
if op == 'tick' and not args[6] then
  settle()
  save()
  return { 'resend', fault }
end
return run()
