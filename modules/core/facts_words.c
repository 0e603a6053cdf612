/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * facts_words.c - words by which facts.c knows what matters, in the languages that people wrote to us in.
 *
 * They are beginnings of words. What is in none of these languages is still known by its numbers, its names and its rare
 * words.
 */
#include "core/facts.h"

const struct facts_words facts_words[] = {
{ FACTS_STRONG,
	"remember remind forget_ note_that keep_in_mind decid decision agreed we_agree let_s_go_with we_go_with i_go_with went_with "
	"settled chose. chosen picked opted ruled_out from_now_on as_of_now promis i_ll. i_will. we_ll. we_will. swore owe owes owed "
	"deadline due. no_later_than by_the_end expire runs_out appointment birthday anniversar allerg intoleran password passcode "
	"booked reserv noted understood important diagnos " },
{ FACTS_STRONG,
	"merk_ erinner vergiss nicht_vergessen entschied entschlossen beschlossen beschloss vereinbart geeinigt versproch verspreche "
	"frist. spatestens bis_zum ab_jetzt ab_sofort termin. termine geburtstag allergi vertragt passwort gebucht reservier schulde "
	"notiert verstanden ich_werde wir_werden wichtig souviens rappel n_oublie decid convenu d_accord promis promet echeance "
	"date_limite avant_le anniversaire rendez_vous mot_de_passe je_vais nous_allons c_est_note " },
{ FACTS_STRONG,
	"recuerd recordar acuerd no_olvid decidi acord promet plazo vence cumpleanos cita_ alergi contrasena anotado entendido ricord "
	"non_dimentic deciso decidi concordat promess promett scadenza entro. compleanno appuntament capito lembr nao_esque decidi "
	"combin prazo aniversari compromisso senha. onthoud herinner vergeet besloten beslis afgesproken beloof uiterlijk verjaardag "
	"afspraak wachtwoord geboekt begrepen " },
{ FACTS_STRONG,
	"pamieta przypomn zapomn zdecydow postanow ustali obieca termin. urodzin alergi haslo zanotowan hatirla unutma karar anlast "
	"soz_ver dogum_gun randevu alerj sifre запомн помни напомн не_забуд решил договорил обеща срок дедлайн день_рожд аллерг "
	"пароль записал 记住 记得 記住 記得 提醒 别忘 別忘 决定 決定 同意 我会 我會 答应 答應 承诺 承諾 保证 保證 截止 期限 生日 过敏 過敏 密码 密碼 "
	"预订 覚え 忘れ 決め 約束 締切 締め切 誕生日 アレルギー パスワード 予約 تذكر ذكرني لا_تنس قرر اتفق وعد موعد حساسي كلمه_المرور "
	"기억 잊지 결정 약속 마감 생일 알레르기 비밀번호 예약 " },
{ FACTS_OWN,
	"my. mine. our. i_am. i_m. i_have. me. us. never. always. must. prefer don_t. do_not. please_ mein meine meinen meinem meiner "
	"unser mir. mich. uns. nie. niemals immer. lieber. muss. bitte. bevorzug mon. ma. mes. notre. moi. jamais toujours prefer "
	"dois. mi. mis. me. nuestr soy. tengo nunca. siempre prefier debo. mio. mia. miei nostr sono. ho. mai. sempre. preferi devo. "
	"meu. minha nosso nossa tenho sou. " },
{ FACTS_OWN,
	"mijn onze. me. ons. nooit altijd liever moet. moj. moja moje mam. mnie nigdy zawsze wole мой моя мое мои наш меня мне нам "
	"никогда всегда предпочит должен должн 我的 我们 我叫 我住 我对 我對 必须 必須 从不 总是 私の 僕の 妹 弟 母 父 必ず いつも ابني امي "
	"ابي بيتي دايما ابدا benim bizim bana kiz_kardesim asla. her_zaman 나의 내_ 우리 항상 " },
{ FACTS_FIRST,
	"i. we. ich. wir. je. j_ nous. yo. nosotros te_ io. noi. eu. nos. ik. wij. ja. my. я. мы. 我 私 僕 ben. biz. 제가 저는 انا نحن سوف " },
{ FACTS_DATE,
	"monday tuesday wednesday thursday friday saturday sunday january february april. june. july. august september october november "
	"december tomorrow tonight noon. midnight next_week next_month o_clock "
	"montag dienstag mittwoch donnerstag freitag samstag sonntag januar "
	"februar marz. mai. juni. juli. oktober dezember ubermorgen nachste_woche nachsten lundi mardi mercredi jeudi vendredi samedi "
	"dimanche janvier fevrier avril juin. juillet aout. septembre octobre novembre decembre demain lunes martes miercoles jueves "
	"viernes sabado domingo enero febrero abril mayo. junio julio agosto septiembre octubre noviembre diciembre lunedi martedi " },
{ FACTS_DATE,
	"mercoledi giovedi venerdi domenica gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre domani segunda_feira "
	"terca_feira quarta_feira quinta_feira sexta_feira janeiro fevereiro maio. junho julho setembro outubro dezembro amanha maandag "
	"dinsdag woensdag donderdag vrijdag zaterdag zondag januari februari maart. mei. augustus overmorgen poniedzial wtorek srode "
	"czwartek piatek sobot niedziel pazartesi carsamba persembe cumartesi понедельник вторник среду среды четверг пятниц суббот "
	"воскресен январ феврал марта апрел мая. июня июля августа сентябр октябр ноябр декабр завтра 星期 礼拜 禮拜 下周 明天 曜日 明日 来週 "
	"الاثنين الثلاثاء الاربعاء الخميس الجمعه السبت غدا 월요일 화요일 수요일 목요일 금요일 토요일 일요일 내일 " },
{ FACTS_ASK,
	"tell. explain describe show. list. give_me what. what_ how. how_ why. "
	"who. whom. when. where. which. can_ could. would. will_you "
	"is. are. do_you does. did. has. have_you go_on continue and_what and_how and_then and_why so_what more. please_tell please_show "
	"please_explain erzahl erklar beschreib zeig. zeige gib_mir was. wie. warum. wieso wer. wann. wo. welche kannst konntest ist. "
	"sind. hast_du mach_weiter weiter. und_was und_wie dis_moi raconte "
	"explique decris montre donne_moi qu_est quoi comment pourquoi " },
{ FACTS_ASK,
	"qui. quand. ou. quel est_ce peux_tu pouvez parle_moi continue et_ensuite dime. cuentame cuenta explica describe. muestra que. "
	"por_que quien cuando donde cual puedes podrias habla_me sigue y_que dimmi racconta spiega descrivi mostra che_cosa cosa. come. "
	"perche chi. quando. dove. quale puoi potresti diz_me conta_me explica mostra o_que porque quem. onde. qual podes pode_ vertel "
	"leg_uit beschrijf wat. hoe. waarom wie. wanneer waar. welke kun_je "
	"opowiedz powiedz wyjasnij jak. dlaczego kto. kiedy gdzie czy. "
	"anlat acikla nasil neden расскажи объясни опиши покажи что. как. почему кто. когда где. какой какая можешь продолж дальше "
	"告诉 请问 什么 怎么 为什么 谁 讲讲 介绍 继续 教えて 何 なぜ どう اخبرني كيف لماذا متي اين " },
{ 0, NULL },
};
