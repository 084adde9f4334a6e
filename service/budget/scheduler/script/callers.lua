-- Callers: their sums over all replicas, their tags, and their places in the order.

-- Fields of a caller; STANDING: 0 without a tag, IDLE, WAITS. Fields of its share on a replica.
local WEIGHT, COUNT, SINCE, BACKGROUND, TAG, STANDING = 1, 2, 3, 4, 5, 6
local NAME, TURNS, SHARES = 7, 8, 9 -- exist within a call only: TURNS counts the turns held, absent for none
local PLACE, SUMMED, SUMMED_URGENT = 10, 11, 12 -- likewise: what the order and the sums have
local IDLE, WAITS = 1, 2
local S_REPLICA, S_WEIGHT, S_COUNT, S_SINCE, S_BACKGROUND = 1, 2, 3, 4, 5

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
