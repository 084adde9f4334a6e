-- Reports: the callers' shares on each replica, from which their sums and the order are made.

local SAME = 20 -- differences in the oldest one's time of entry up to this are those of clock readings

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

-- Take one from the demand that this slot's turn was given for.
local function take_off(slot)
  local share = share_on(shares_of(slot[CALLER]), slot[REPLICA])
  if not share then return end
  share[S_COUNT] = share[S_COUNT] - 1
  write_share(slot[CALLER], slot[REPLICA], share[S_COUNT] > 0 and share or nil)
end

-- A tick sends differences to the report known here; without one, the whole report is needed.
local function lacks_report()
  if op ~= 'tick' or args[6] then return false end
  local packed = S.run_id == RUN and redis.call('HGET', KEYS[3], replica)
  return not packed or cmsgpack.unpack(packed)[2] < args[8]
end
